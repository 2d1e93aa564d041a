"""Networks and heads built from a recipe, averaged weights, and model export (safetensors, ONNX).

May import `training.data`, `training.recipe` and `common`.
"""
