"""A search under a virtual clock, with learning curves in place of trainings: what a budget will buy, before it is spent.

May import `views`, `search`, `training` and `common`.
"""
