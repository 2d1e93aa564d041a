"""Images: named data sets, folders of images, fixed splits, batches, augmentation, and the only access to the test set.

May import `training.recipe` and `common`.
"""
