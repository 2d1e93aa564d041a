"""What a program calls: train a recipe, evaluate a model, download data, begin a study file for own images.

May import `views`, `search`, `training` and `common`.
"""
