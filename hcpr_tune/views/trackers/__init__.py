"""MLflow and Weights & Biases.

May import `views`, `search` and `common`.
"""
