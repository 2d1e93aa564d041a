"""Learning curves and costs of simulated trials: assumed, of earlier studies, of a CSV file, resampled with their noise.

May import `search`, `training` and `common`.
"""
