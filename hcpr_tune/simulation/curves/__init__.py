"""Learning curves and costs of simulated trials: assumed, or resampled with noise from earlier studies or a CSV file.

May import `search`, `training` and `common`.
"""
