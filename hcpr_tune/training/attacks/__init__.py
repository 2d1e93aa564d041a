"""Attacks and evaluation under them: PGD, the cascade of AutoAttack's attacks, validation accuracy, example pictures.

May import `training.models`, `training.data`, `training.recipe` and `common`.
"""
