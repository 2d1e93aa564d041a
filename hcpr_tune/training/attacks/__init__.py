"""Attacks and what they leave: PGD, the cascade of AutoAttack's attacks, accuracy on validation, pictures of attacked images.

May import `training.models`, `training.data`, `training.recipe` and `common`.
"""
