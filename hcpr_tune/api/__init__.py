"""What can be done, with typed arguments: search, simulate, evaluate, train, export. `Study` and the commands call it.

May import everything but `study` and `cli`.
"""
