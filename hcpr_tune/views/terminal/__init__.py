"""The live view of a running search, and lines for grep.

May import `views`, `search` and `common`.
"""
