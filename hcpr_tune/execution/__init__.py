"""Ray: a cluster is found or started, jobs are handed out through Ray Tune and done by its workers. Nothing else imports ray.

May import `views.summary`, `search`, `training` and `common`.
"""
