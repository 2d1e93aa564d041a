"""Functions for programs: train a recipe, evaluate a model, download data, create a starter space for own images.

May import `views`, `search`, `training` and `common`.
"""
