"""Which recipes are the best, judged by everything that the record has: those to train again, and the answer.

May import `search.record`, `search.scheduling`, `search.spec` and `common`.
"""
