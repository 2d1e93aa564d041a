"""Searches and verdicts under a virtual clock, without training, to see beforehand what they take and what they find.

May import `verdict`, `views`, `search`, `training` and `common`.
"""
