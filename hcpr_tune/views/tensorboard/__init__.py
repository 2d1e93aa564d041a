"""TensorBoard's files: curves, HParams, pictures.

May import `views`, `search` and `common`.
"""
