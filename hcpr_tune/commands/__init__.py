"""One module per command: what it does with its arguments, and what it prints."""
