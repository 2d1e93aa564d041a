"""The HTML report of a study and the page of a plan, with their figures.

May import `views`, `search` and `common`.
"""
