"""The live view of a running search, and its plain and JSON lines.

May import `views`, `search` and `common`.
"""
