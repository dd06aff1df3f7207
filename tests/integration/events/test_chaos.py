"""A small run of ``make chaos``."""

from __future__ import annotations

from pathlib import Path

from chaos import chaos


def test_nothing_is_lost_while_gateway_supervisors_and_functions_are_killed(tmp_path: Path) -> None:
    outcome = chaos(tmp_path, events=1_500, every=0.8, seed="11")
    assert outcome.accepted >= 1_500
    assert outcome.lost == set()
    assert outcome.unexplained == set()
    assert outcome.kills
