"""``python -m kappa_operator``: the same as ``kappa operator``."""

from kappa_operator.cli import operator

operator(prog_name="kappa operator")
