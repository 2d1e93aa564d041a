"""Images: named data sets, folders of images, fixed splits, batches, augmentation, and the only access to the test set.

May import `training.recipe`, `training.plugins` and `common`; `registry` is imported by the recipe.
"""
