"""The ``kappa`` command: every subcommand parses, calls one function and prints."""
