"""Object storage: where a study is stored, as a folder or a bucket's URL, and reading and writing a bucket's objects.

May import `common` only.
"""
