"""Which job runs next, as functions of the history: rules of early stopping, their rungs, and what a rung predicts.

May import `search.record`, `search.spec` and `common`.
"""
