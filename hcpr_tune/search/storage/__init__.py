"""Where studies lie, in a folder or a bucket: checkpoints, requests to a running search, and the lease of the process that leads it.

May import `search.record`, `search.spec` and `common`.
"""
