"""Simulated searches: a virtual clock, and learning curves instead of trainings, to see what a budget buys beforehand.

May import `views`, `search`, `training` and `common`.
"""
