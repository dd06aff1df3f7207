"""Gives every integration test the fixtures that run a real `kappa dev`."""

from kappa_dev import kappa, start_kappa

__all__ = ["kappa", "start_kappa"]
