"""What a verdict does next, which candidate wins and with what certainty: pure functions of its plan and record.

May import `search` and `common`.
"""
