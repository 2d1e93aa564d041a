"""TensorBoard files: curves, HParams, images.

May import `views`, `search` and `common`.
"""
