"""The link in virtual time: seeded histories of up to three gateways under faults, each checked at every step. Here the first two
thousand; ``make simulation``, which CI runs as well, goes on to ten thousand.

``KAPPA_SIMULATION_SEEDS=17`` runs one seed and ``KAPPA_SIMULATION_SEEDS=20000:30000`` others; ``bench/simulation/simulate.py`` runs as
many as one likes and prints a seed's whole trace. The shares let ``pytest -n`` spread the work.
"""

import random

import pytest

import kappa_core.link.scale
from kappa_core.link.collection import View
from simulation import broken
from simulation.cluster import Machines, simulate
from simulation.plan import Plan, contend
from simulation.report import first_failure, shares

SHARES = 20


@pytest.mark.parametrize("chosen", shares(SHARES), ids=lambda chosen: f"{chosen.start}-by-{chosen.step}")
def test_no_history_breaks_a_guarantee_of_the_link(chosen: range) -> None:
    failure = first_failure(chosen)
    assert not failure, failure


def test_one_seed_is_one_history() -> None:
    assert simulate(11).text() == simulate(11).text()


@pytest.mark.parametrize(
    ("machines", "said"),
    [
        pytest.param(Machines(parking=broken.NoEpochCheck), "runs", id="epochs are not checked"),
        pytest.param(Machines(parking=broken.ForgetsWhatItAccepted), "ran", id="a HELLO does not say what was accepted"),
        pytest.param(Machines(dispatcher=broken.RunsLostAgain), "ran twice", id="what was lost is dispatched again"),
        pytest.param(Machines(dispatcher=broken.DeniesEveryone), "was throttled", id="a denial covers later waiters"),
        pytest.param(Machines(dispatcher=broken.LastComeFirstServed), "overtook", id="waiters are not served in order"),
        pytest.param(Machines(dispatcher=broken.FirstUsedFirst), "was taken before", id="not the last used comes first"),
        pytest.param(Machines(dispatcher=broken.NeverSaysWant), "503", id="idle environments never hear of waiters elsewhere"),
        pytest.param(Machines(scaler=broken.Generous), "are permitted", id="one environment too many is started"),
        pytest.param(Machines(scaler=broken.ForgetsInventory), "are permitted", id="a new holder forgets what exists"),
        pytest.param(Machines(scaler=broken.CountsGoneTooEarly), "are permitted", id="what drains no longer counts"),
        pytest.param(Machines(scaler=broken.KeepsNothing), "are to be", id="nothing is kept for provisioned concurrency"),
        pytest.param(Machines(scaler=broken.LendsWhatIsSetAside), "are permitted", id="what is set aside is lent"),
        pytest.param(Machines(scaler=broken.DeniesDespiteProvisioned), "was throttled", id="idle provisioned ones are ignored"),
        pytest.param(
            Machines(dispatcher=broken.TakesTheLastUsed), "which is provisioned", id="provisioned ones are not preferred"
        ),
        pytest.param(Machines(scaler=broken.NeverReaps), "are left after all is quiet", id="idle environments stay"),
    ],
)
def test_the_checks_catch_a_machine_that_lacks_a_rule(machines: Machines, said: str) -> None:
    assert said in first_failure(range(1000), machines=machines, of=said)


def test_the_checks_catch_a_429_after_a_single_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    def after_one(shares: list[tuple[int, list[str]]], *, view: View, first: View | None) -> bool:
        return all(sum(name in view.busy for name in permitted) >= number for number, permitted in shares)

    def far_gateway(plan: Plan) -> None:
        """Its waiters' wishes come late, so idle environments change hands between the other two while it waits."""
        contend(plan, random.Random(1))
        plan.functions, plan.shared, plan.clients, plan.requests = {"f0": 2}, False, 4, 30
        plan.delay, plan.peer_delay, plan.far_delay, plan.duration, plan.pause = 0.001, 0.02, 0.15, (0.02, 0.1), 0.2
        plan.faults = plan.updates = plan.limit_changes = 0
        plan.init_crashes = plan.start_failures = plan.never_starts = plan.crashes = plan.timeouts = plan.duplicate_dials = 0.0

    assert not first_failure(range(60), change=far_gateway)
    monkeypatch.setattr(kappa_core.link.scale, "proves", after_one)
    assert "was throttled" in first_failure(range(400), change=far_gateway)
