"""Which job runs next: ASHA, its rungs, and how well a rung predicts the last one, as functions of the history.

May import `search.record`, `search.spec` and `common`.
"""
