"""Find or start a Ray cluster, and run jobs on its workers through Ray Tune. Only this package imports ray.

May import `views.summary`, `search`, `training` and `common`.
"""
