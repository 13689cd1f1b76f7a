"""How the subcommands of `petif` end; 0 is all well, and click's own 2 a wrong call."""

SOME_FAILED = 1
NO_SERVER = 3
INTERRUPTED = 130
"""What shells give a program that Ctrl-C has ended."""
