"""This service against other ways to spend the same time on the same search.

`tasks` says what is searched, `rivals` and `syne` are the other searches, which train by `trainer`; `running` runs one
arm, `scoring` finds out what its final choice is worth, `summary` compares, `command` is `search.py arms`.
"""
