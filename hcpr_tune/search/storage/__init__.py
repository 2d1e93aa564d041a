"""Studies in a folder or a bucket: checkpoints, requests to a running search, and the lease of its driver.

May import `search.record`, `search.spec` and `common`.
"""
