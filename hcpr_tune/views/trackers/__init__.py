"""Copies of a search in MLflow and Weights & Biases.

May import `views`, `search` and `common`.
"""
