"""Shared foundations: settings and their checks, files, text, standard output, object storage.

May import nothing from hcpr_tune except its errors and version.
"""
