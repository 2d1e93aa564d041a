"""The live page of studies, `hcpr_tune watch`: a web server that reads their records and passes requests on.

May import `study`, `api` and everything below them; only `cli` imports it.
"""
