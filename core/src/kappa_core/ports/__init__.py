"""The ports: what the rules and the gateway need from the outside world.

Each has an in-memory twin in :mod:`kappa_core.memory`, one or more drivers elsewhere, and one conformance suite in
``tests/contract`` that runs on all of them.
"""
