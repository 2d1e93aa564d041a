"""The events of a record: a type for each kind, from which the schema is made that checks it.

Events are checked before they are written and before they are folded, so that a line changed by hand or written by
another version is reported with its field, bounds and value. May import `search.spec`, `training` and `common`.
"""
