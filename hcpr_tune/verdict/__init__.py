"""The verdict: whether a search's best trial beats its baselines, trained again on new seeds, under AutoAttack.

May import `execution`, `views`, `search`, `training` and `common`.
"""
