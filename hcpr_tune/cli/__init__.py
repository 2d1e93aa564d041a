"""The command line: arguments are parsed, a function is called, its result is printed.

May import everything below; nothing imports it but `programs`.
"""
