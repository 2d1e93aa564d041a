"""Commands that run something or write a file: a module each."""
