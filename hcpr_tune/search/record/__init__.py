"""The append-only record of events, the history folded from it, and the result files rebuilt from it.

May import `search.spec`, `training` and `common`.
"""
