"""What a study file says: its settings, search space and objectives, checked and typed.

May import `training.recipe` and `common`.
"""
