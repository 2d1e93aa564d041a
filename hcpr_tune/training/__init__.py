"""Adversarial training of one recipe with torch and numpy: no Ray, no Optuna, no environment variables, no printing.

`train(recipe, data, state)` in `loop` yields an `Epoch` after each epoch; `session` adds checkpoints.
May import `common`.
"""
