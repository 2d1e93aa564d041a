"""Images: data sets by name, folders of images, fixed splits, batches, augmentation, and the only door to the test images.

May import `training.recipe` and `common`.
"""
