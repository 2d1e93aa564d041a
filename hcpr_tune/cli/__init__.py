"""The command line: arguments are parsed, a function is called, its result is printed.

May import everything below; only `hcpr_tune.tune` imports it.
"""
