"""The study file: its settings, search space and objectives, parsed and checked.

May import `training.recipe` and `common`.
"""
