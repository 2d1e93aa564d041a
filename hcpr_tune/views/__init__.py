"""What people look at, all of it from a study's record: plain values here, one package for each kind of view below.

May import `search`, `training` and `common`.
"""
