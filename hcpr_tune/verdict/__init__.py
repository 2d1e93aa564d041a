"""Whether the best trial of a search beats its baselines, trained again on new seeds and attacked by AutoAttack.

May import `execution`, `views`, `search`, `training` and `common`.
"""
