"""The operations of the Lambda API: one short function each over the ports, without HTTP and without a decision of its own.

An operation reads what it names, asks :mod:`kappa_core.rules` what follows, writes one resource at a time with optimistic
concurrency, and answers the members of its output shape. :mod:`.settle` brings about what an accepted change promises, and
:mod:`.sweep` collects what nothing refers to any more.
"""
