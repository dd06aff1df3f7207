"""Asynchronous events while gateways, PostgreSQL and function pods are killed: none is lost, each ends in one recorded state.

`KAPPA_CHAOS_EVENTS=100000` runs it in full.
"""

from __future__ import annotations

import os

from cluster_chaos import cluster_chaos
from kappa_cluster import Release

EVENTS = int(os.environ.get("KAPPA_CHAOS_EVENTS", "1500"))


def test_no_event_is_lost_while_gateways_the_database_and_function_pods_are_killed(release: Release, name: str) -> None:
    with cluster_chaos(release, name) as chaos:
        outcome = chaos.run(EVENTS)
    print(outcome.describe())
    assert len(outcome.accepted) >= EVENTS
    assert outcome.lost == set()
    assert outcome.waiting == 0
    # Exactly one recorded state: what has run to its end is done, whatever else is a dead letter.
    assert outcome.done == len(outcome.ended.keys() - outcome.dead)
    assert outcome.unexplained == set()
