"""Views of a study, all from its record: plain values here, one subpackage for each kind of view.

May import `search`, `training` and `common`.
"""
