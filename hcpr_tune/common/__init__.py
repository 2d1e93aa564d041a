"""What all of the product stands on: settings and their checks, files, text, standard output, object storage.

May import nothing of hcpr_tune but its errors and version.
"""
