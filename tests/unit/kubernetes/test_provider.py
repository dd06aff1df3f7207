"""DeploymentProvider over a cluster in memory: what it asks of the API for which events, in virtual time."""

from __future__ import annotations

import pytest

from deployments_twin import NAMESPACE
from kappa_core.link.capacity import Known
from kappa_core.ports.environments import ProviderError
from kappa_crds import labels
from kappa_crds.api import Forbidden, Unavailable
from kappa_gateway.kubernetes.fleet import CONDEMNED_SECONDS, LINGER_SECONDS, Ceiling
from kappa_gateway.kubernetes.provider import DEPLOYMENT_SECONDS, ENDED_SECONDS, INHERITED_SECONDS
from provider_scene import REVISION, Scene, scene, spec_of
from virtual_time import virtual


@virtual
async def test_a_burst_is_one_patch_and_each_pod_gets_one_environment() -> None:
    async with scene() as it:
        await it.provider.start(spec_of(), ["e1", "e2"])
        await it.provider.start(spec_of(), ["e3"])
        await it.quiet()
        assert [(verb, what) for verb, what, _ in it.cluster.writes] == [("json", "deployments/f")]
        assert it.cluster.replicas("f") == 3
        it.cluster.settle("f")
        for uid in it.cluster.pods():
            await it.greet(uid)
        assert sorted(it.running().values()) == [["e1"], ["e2"], ["e3"]]
        assert set(it.links.assigned.values()) == {REVISION}


@virtual
async def test_a_greeting_may_be_faster_than_the_informer() -> None:
    async with scene() as it:
        await it.start("e1")
        supervisor = await it.greet("p1")
        assert it.running() == {supervisor: ["e1"]}
        it.cluster.settle("f")
        it.cluster.run("p1")
        await it.quiet(LINGER_SECONDS + 1)
        assert it.cluster.replicas("f") == 1


@virtual
async def test_scaling_down_takes_the_pod_that_is_free_and_only_after_a_moment() -> None:
    async with scene() as it:
        first, second = await it.come_up("e1", "e2")
        await it.environment_ends(first, "e1")
        assert it.cluster.replicas("f") == 2
        await it.quiet(LINGER_SECONDS + 0.1)
        assert it.cluster.replicas("f") == 1
        marks = [(what, body["metadata"]["annotations"]) for _, what, body in it.cluster.writes if what.startswith("pods/")]
        assert marks == [(f"pods/f-{first[:2]}", {"controller.kubernetes.io/pod-deletion-cost": "-1"})]
        it.cluster.settle("f")
        assert it.cluster.pods() == [second[:2]]
        it.cluster.gone(first[:2])
        await it.environment_ends(second, "e2")
        await it.quiet(LINGER_SECONDS + 0.1)
        assert it.cluster.replicas("f") == 0


@virtual
async def test_a_free_pod_is_used_again_without_a_patch() -> None:
    async with scene() as it:
        (supervisor,) = await it.come_up("e1")
        await it.environment_ends(supervisor, "e1")
        writes = len(it.cluster.writes)
        await it.start("e2")
        assert it.running() == {supervisor: ["e2"]}
        await it.quiet(LINGER_SECONDS + 1)
        assert len(it.cluster.writes) == writes
        assert it.cluster.replicas("f") == 1


@virtual
async def test_a_pod_that_is_to_go_gets_nothing_until_it_is_seen_to_have_been_spared() -> None:
    async with scene() as it:
        (supervisor,) = await it.come_up("e1")
        await it.environment_ends(supervisor, "e1")
        await it.quiet(LINGER_SECONDS + 0.1)
        assert it.cluster.replicas("f") == 0
        await it.start("e2")  # before the ReplicaSet has looked
        assert it.running() == {}
        assert it.cluster.replicas("f") == 2
        await it.quiet(CONDEMNED_SECONDS)
        await it.quiet(0.1)
        assert it.running() == {supervisor: ["e2"]}


@virtual
async def test_lowering_is_refused_when_the_deployment_was_changed_meanwhile() -> None:
    async with scene() as it:
        (supervisor,) = await it.come_up("e1")
        await it.environment_ends(supervisor, "e1")

        def change_first(verb: str, path: str) -> None:
            it.cluster.faults = lambda verb, path: None
            it.cluster.scale("f", 5)

        it.cluster.faults = change_first
        await it.quiet(LINGER_SECONDS + 0.5)
        conflicts = [body for verb, what, body in it.cluster.writes if verb == "merge" and what == "deployments/f"]
        assert len(conflicts) == 2
        assert it.cluster.replicas("f") == 0


@virtual
async def test_raising_never_undoes_what_another_has_raised() -> None:
    async with scene() as it:

        def change_first(verb: str, path: str) -> None:
            it.cluster.faults = lambda verb, path: None
            it.cluster.scale("f", 7)

        it.cluster.faults = change_first
        await it.start("e1")
        assert it.cluster.replicas("f") == 7


@virtual
async def test_nothing_is_written_once_the_term_is_over() -> None:
    async with scene() as it:
        (supervisor,) = await it.come_up("e1")
        writes = len(it.cluster.writes)
        it.holds = False
        await it.environment_ends(supervisor, "e1")
        await it.provider.start(spec_of(), ["e2", "e3"])
        await it.quiet(60)
        assert len(it.cluster.writes) == writes
        await it.provider.close()
        with pytest.raises(ProviderError, match="does not hold the scaler"):
            await it.provider.start(spec_of(), ["e4"])
        assert it.cluster.replicas("f") == 1


@virtual
async def test_the_api_server_away_delays_and_loses_nothing() -> None:
    async with scene() as it:

        def away(verb: str, path: str) -> None:
            raise Unavailable("connection refused")

        it.cluster.faults = away
        await it.start("e1")
        await it.quiet(5)
        assert it.cluster.replicas("f") == 0
        it.cluster.faults = lambda verb, path: None
        await it.quiet(1)
        assert it.cluster.replicas("f") == 1


@virtual
async def test_a_gateway_that_may_not_scale_says_so() -> None:
    async with scene() as it:

        def forbidden(verb: str, path: str) -> None:
            raise Forbidden("deployments.apps is forbidden")

        it.cluster.faults = forbidden
        await it.start("e1")
        assert it.ended == [("", ["e1"], "the gateway may not scale its Deployment: deployments.apps is forbidden")]


@virtual
async def test_a_missing_deployment_is_waited_for() -> None:
    async with scene(deployment=False) as it:
        await it.start("e1")
        await it.quiet(DEPLOYMENT_SECONDS - 1)
        it.cluster.deployment("f", REVISION)
        await it.quiet()
        assert it.cluster.replicas("f") == 1
        await it.quiet(2)
        assert it.ended == []


@virtual
async def test_a_published_version_without_deployment_is_said_to_be_wanted() -> None:
    revision = "uid-f.3.1"
    async with scene(deployment=False, revision=revision) as it:
        it.cluster.objects["functionversions", "f.3"] = {
            "metadata": {"namespace": NAMESPACE, "name": "f.3", "uid": "uid-f.3", "resourceVersion": "1"}
        }
        await it.provider.start(spec_of(revision, version="3"), ["e1"])
        await it.quiet()
        ((_, what, body),) = it.cluster.writes
        assert what == "functionversions/f.3"
        assert labels.WANTED in body["metadata"]["annotations"]


@virtual
async def test_without_an_operator_the_start_fails_in_the_end() -> None:
    async with scene(deployment=False) as it:
        await it.start("e1")
        await it.quiet(DEPLOYMENT_SECONDS)
        assert it.ended == [("", ["e1"], f"the operator has made no Deployment for it within {DEPLOYMENT_SECONDS:g} s")]
        await it.start("e2")
        await it.quiet(DEPLOYMENT_SECONDS)
        assert [environments for _, environments, _ in it.ended] == [["e1"], ["e2"]]


@virtual
async def test_a_hopeless_pod_fails_one_start_and_is_replaced_for_the_next() -> None:
    async with scene() as it:
        await it.start("e1", "e2")
        it.cluster.settle("f")
        await it.quiet()
        it.cluster.waiting("p1", "ImagePullBackOff", "Back-off pulling image")
        await it.quiet()
        why = "the image registry.test/python:1 cannot be pulled (ImagePullBackOff): Back-off pulling image"
        assert it.ended == [("", ["e1"], why)]
        await it.quiet(1)
        assert len(it.ended) == 1
        assert ("delete", "pods/f-p1", "p1") in it.cluster.writes
        await it.greet("p2")
        assert it.running() == {"p2.1": ["e2"]}


@virtual
async def test_an_unschedulable_pod_is_told_of_and_waited_for() -> None:
    async with scene() as it:
        await it.start("e1")
        it.cluster.settle("f")
        unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes: no memory"}
        it.cluster.status("p1", conditions=[unschedulable])
        await it.quiet()
        words = "no node has room for its pod: 0/2 nodes: no memory"
        assert it.causes == [(REVISION, words)]
        assert it.ended == []
        await it.provider.stop(REVISION, ["e1"])
        await it.quiet()
        assert it.ended == [("", ["e1"], words)]
        assert it.cluster.replicas("f") == 0


@virtual
async def test_trouble_that_passed_is_taken_back() -> None:
    async with scene() as it:
        await it.start("e1")
        it.cluster.settle("f")
        await it.quiet()
        it.cluster.waiting("p1", "ErrImagePull", "timeout")
        await it.quiet()
        await it.greet("p1")
        assert [cause for _, cause in it.causes] == [
            "the image registry.test/python:1 cannot be pulled (ErrImagePull): timeout",
            "",
        ]


@virtual
async def test_a_quota_fails_the_starts_in_its_own_words() -> None:
    async with scene() as it:
        await it.start("e1", "e2")
        it.cluster.failing("f", 'pods "f-x" is forbidden: exceeded quota: compute')
        await it.quiet()
        why = 'no pod can be made for it: pods "f-x" is forbidden: exceeded quota: compute'
        assert it.ended == [("", ["e1", "e2"], why)]
        await it.quiet(1)
        assert it.cluster.replicas("f") == 0


@virtual
async def test_the_ceilings_hold_and_say_so() -> None:
    async with scene(ceiling=Ceiling(2, 3)) as it:
        await it.start("e1", "e2", "e3")
        assert it.cluster.replicas("f") == 2
        ((_, refused, why),) = it.ended
        assert refused == ["e3"]
        assert why.startswith("2 environments are the most that a function may have")
        with pytest.raises(ProviderError, match="2 environments are the most that a function"):
            await it.provider.start(spec_of(), ["e4"])
        await it.provider.start(spec_of("uid-g.$LATEST.1"), ["g1"])
        with pytest.raises(ProviderError, match="3 environments are the most that all functions"):
            await it.provider.start(spec_of("uid-g.$LATEST.1"), ["g2"])


class TestEnds:
    @staticmethod
    @virtual
    async def test_a_lost_link_is_no_end() -> None:
        async with scene() as it:
            (supervisor,) = await it.come_up("e1")
            await it.unlink(supervisor)
            await it.quiet(100)
            assert it.ended == []
            assert it.cluster.replicas("f") == 1

    @staticmethod
    @virtual
    async def test_a_deleted_pod_is_one() -> None:
        async with scene() as it:
            (supervisor,) = await it.come_up("e1")
            await it.unlink(supervisor)
            it.cluster.gone("p1")
            await it.quiet()
            assert it.ended == [(supervisor, ["e1"], "its pod was deleted")]

    @staticmethod
    @virtual
    async def test_a_pod_that_was_deleted_by_force_counts_as_long_as_it_is_linked() -> None:
        async with scene() as it:
            (supervisor,) = await it.come_up("e1")
            it.cluster.gone("p1")
            await it.quiet(10)
            assert it.ended == []
            await it.unlink(supervisor)
            assert it.ended == [(supervisor, ["e1"], "its pod was deleted")]

    @staticmethod
    @virtual
    async def test_a_pod_that_was_never_told_of_is_looked_up() -> None:
        async with scene() as it:
            await it.start("e1")
            supervisor = await it.greet("unseen")
            await it.unlink(supervisor)
            await it.quiet(1)
            assert it.ended == []
            await it.quiet(ENDED_SECONDS)
            assert it.ended == [(supervisor, ["e1"], "its pod was deleted")]

    @staticmethod
    @virtual
    async def test_a_pod_that_crashes_after_it_was_up_costs_no_start() -> None:
        async with scene() as it:
            (supervisor,) = await it.come_up("e1")
            await it.unlink(supervisor)
            it.cluster.waiting("p1", "CrashLoopBackOff")
            await it.quiet(ENDED_SECONDS + 0.1)
            await it.start("e2")
            assert it.ended == [(supervisor, ["e1"], "its container ended")]
            assert ("delete", "pods/f-p1", "p1") in it.cluster.writes

    @staticmethod
    @virtual
    async def test_a_container_that_does_not_run_is_one_after_a_moment() -> None:
        async with scene() as it:
            (supervisor,) = await it.come_up("e1")
            await it.unlink(supervisor)
            it.cluster.waiting("p1", "CrashLoopBackOff")
            await it.quiet(0.5)
            assert it.ended == []
            await it.quiet(ENDED_SECONDS)
            assert it.ended == [(supervisor, ["e1"], "its container ended")]

    @staticmethod
    @virtual
    async def test_another_supervisor_of_the_same_pod_proves_the_end_of_the_first() -> None:
        async with scene() as it:
            (supervisor,) = await it.come_up("e1")
            await it.unlink(supervisor)
            second = await it.greet("p1", life="2")
            assert it.ended == [(supervisor, ["e1"], "its container ended")]
            await it.start("e2")
            assert it.running() == {second: ["e2"]}

    @staticmethod
    @virtual
    async def test_what_never_came_up_is_stopped_by_lowering_and_what_hangs_by_deleting() -> None:
        async with scene() as it:
            (supervisor,) = await it.come_up("e1")
            await it.start("e2")
            await it.unlink(supervisor)
            await it.provider.stop(REVISION, ["e1", "e2"])
            await it.quiet(0.1)
            assert it.ended == [("", ["e2"], "no pod came up for it in time")]
            assert ("delete", "pods/f-p1", "p1") in it.cluster.writes
            it.cluster.gone("p1")
            await it.quiet()
            assert it.ended[1:] == [(supervisor, ["e1"], "its pod was deleted")]
            assert it.cluster.replicas("f") == 0


class TestANewTerm:
    @staticmethod
    async def _before(it: Scene, *, running: bool = True) -> None:
        """A holder before has left two pods."""
        it.cluster.scale("f", 2)
        it.cluster.settle("f")
        for uid in it.cluster.pods():
            if running:
                it.cluster.run(uid)

    @staticmethod
    @virtual
    async def test_counts_pods_that_are_not_linked_until_they_say_what_they_run() -> None:
        async with scene(begin=False) as it:
            await TestANewTerm._before(it)
            it.links.linked["p1.1"] = ["e1"]
            await it.provider.open()
            assert it.provider.has_pods
            assert it.provider.inherit() == [Known("pod:p2", REVISION, "draining")]
            it.provider.begin()
            await it.quiet(INHERITED_SECONDS + LINGER_SECONDS + 1)
            assert it.cluster.replicas("f") == 2
            it.ended.clear()
            await it.greet("p2", running=("e2",))
            assert it.ended == [("", ["pod:p2"], "what it ran is known")]
            await it.quiet(LINGER_SECONDS + 1)
            assert it.cluster.replicas("f") == 2

    @staticmethod
    @virtual
    async def test_lets_surplus_pods_go() -> None:
        async with scene(begin=False) as it:
            await TestANewTerm._before(it)
            it.links.linked |= {"p1.1": [], "p2.1": ["e2"]}
            await it.provider.open()
            it.provider.inherit()
            it.provider.begin()
            await it.quiet(LINGER_SECONDS + 1)
            assert it.cluster.replicas("f") == 1
            it.cluster.settle("f")
            assert it.cluster.pods() == ["p2"]

    @staticmethod
    @virtual
    async def test_gives_up_pods_that_never_ran() -> None:
        async with scene(begin=False) as it:
            await TestANewTerm._before(it, running=False)
            await it.provider.open()
            assert it.provider.inherit() == []  # they have no node
            it.provider.begin()
            await it.quiet(0.1)
            assert it.cluster.replicas("f") == 0

    @staticmethod
    @virtual
    @pytest.mark.parametrize("comes", [True, False])
    async def test_does_not_double_the_pods_that_are_on_their_way(*, comes: bool) -> None:
        async with scene(begin=False) as it:
            await TestANewTerm._before(it, running=False)
            for uid in it.cluster.pods():
                it.cluster.bind(uid)
            await it.provider.open()
            assert (
                len(it.provider.inherit()) == 2
            )  # one that greeted the holder before would be faster than the kubelet's word of it
            it.provider.begin()
            await it.start("e1", "e2", "e3")
            assert it.cluster.replicas("f") == 3
            if comes:
                await it.greet("p1")
                await it.greet("p2")
                assert sorted(it.running().values()) == [["e1"], ["e2"]]
            await it.quiet(INHERITED_SECONDS + LINGER_SECONDS + 1)
            assert it.cluster.replicas("f") == 3

    @staticmethod
    @virtual
    async def test_makes_another_pod_where_one_on_its_way_turns_out_to_run_something() -> None:
        async with scene(begin=False) as it:
            await TestANewTerm._before(it, running=False)
            for uid in it.cluster.pods():
                it.cluster.bind(uid)
            await it.provider.open()
            it.provider.inherit()
            it.provider.begin()
            await it.start("e1", "e2")
            assert it.cluster.replicas("f") == 2
            await it.greet("p1", running=("before",))
            assert it.cluster.replicas("f") == 3

    @staticmethod
    @virtual
    async def test_starts_nothing_where_the_holder_before_has_just_started_something() -> None:
        async with scene(begin=False) as it:
            await TestANewTerm._before(it)
            it.links.linked |= {"p1.1": [], "p2.1": []}
            await it.provider.open()
            it.provider.inherit()
            it.provider.begin()
            it.links.linked["p1.1"].append("late")
            await it.start("e1")
            assert it.running() == {"p1.1": ["late"], "p2.1": ["e1"]}

    @staticmethod
    @virtual
    async def test_does_not_begin_without_the_api_server() -> None:
        async with scene(begin=False) as it:

            def away(verb: str, path: str) -> None:
                raise Unavailable("connection refused")

            it.cluster.faults = away
            with pytest.raises(ProviderError, match="has not listed"):
                await it.provider.open()
