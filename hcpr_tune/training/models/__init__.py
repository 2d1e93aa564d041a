"""Networks and heads built from a recipe, averaged weights, and models to take away (safetensors, ONNX).

May import `training.data`, `training.recipe` and `common`.
"""
