"""Before a search: download a data set, write a starter space for a folder of images.

May import what `api` may.
"""
