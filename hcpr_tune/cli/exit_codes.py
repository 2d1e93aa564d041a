"""The exit codes of the commands."""

COMPLETED, NOTHING_COMPLETED, BAD_INPUT, INTERRUPTED, NOT_READ = 0, 1, 2, 130, 141
"""`NOT_READ` is what a shell reports of a program that SIGPIPE ended: `hcpr_tune list | head -1`."""
