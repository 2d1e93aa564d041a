"""The connection to Ray: join a cluster or start one, its tokens, its resources, and the process that calls us.

May import `search`, `training` and `common`.
"""
