"""The methods of adversarial training: their losses, schedules and weight perturbation, as pure functions in one table.

May import `training.attacks.pgd`, `training.models`, `training.recipe` and `common`.
"""
