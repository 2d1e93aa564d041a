"""Adversarial training of one recipe: torch and numpy, without Ray, Optuna, environment variables or printing.

`train(recipe, data, state)` in `loop` yields an `Epoch` after each epoch; `session` adds the checkpoints.
May import `common`.
"""
