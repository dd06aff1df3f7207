"""What Pod and Deployment objects say: trouble in words, states, and how a container ended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from kappa_crds import labels
from kappa_crds.api import NotFound, Object, Unavailable
from kappa_gateway.kubernetes.deaths import Deaths
from kappa_gateway.kubernetes.pods import DELETION_COST, deployment_state, exit_of, pod_state, trimmed
from kappa_gateway.links.killed import Ending
from kappa_gateway.links.server import PodIdentity

NOW = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)


def pod(**status: Any) -> Object:
    metadata = {
        "namespace": "shop",
        "name": "f-1",
        "uid": "pod-uid",
        "resourceVersion": "7",
        "labels": {"app": "x"},
        "annotations": {labels.REVISION: "uid-f.1.x", DELETION_COST: "-1", "other": "y"},
        "managedFields": [{}],
    }
    return {"metadata": metadata, "spec": {"nodeName": "node1", "containers": []}, "status": {"phase": "Running"} | status}


def container(state: Object, *, last: Object | None = None, name: str = "function") -> Object:
    return {"name": name, "image": "registry.test/python:1", "state": state, "lastState": last or {}}


def test_a_pod_is_read_the_same_before_and_after_trimming() -> None:
    ready = pod(conditions=[{"type": "Ready", "status": "True"}], containerStatuses=[container({"running": {}})])
    assert pod_state(trimmed(ready)) == pod_state(ready)
    state = pod_state(ready)
    assert (state.node, state.ready, state.running, state.cost, state.trouble) == ("node1", True, True, -1, None)
    assert set(trimmed(ready)["metadata"]["annotations"]) == {labels.REVISION, DELETION_COST}


def test_a_cost_that_is_no_number_counts_as_none() -> None:
    strange = pod()
    strange["metadata"]["annotations"][DELETION_COST] = "much"
    assert pod_state(strange).cost == 0


@pytest.mark.parametrize(
    ("status", "words", "hopeless"),
    [
        pytest.param(
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes:\n memory"}
                ]
            },
            "no node has room for its pod: 0/2 nodes: memory",
            False,
            id="no room",
        ),
        pytest.param(
            {"containerStatuses": [container({"waiting": {"reason": "ErrImagePull", "message": "timeout"}})]},
            "the image registry.test/python:1 cannot be pulled (ErrImagePull): timeout",
            False,
            id="a pull that failed once",
        ),
        pytest.param(
            {"containerStatuses": [container({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}})]},
            "the image registry.test/python:1 cannot be pulled (ImagePullBackOff): not found",
            True,
            id="a pull that fails",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    container({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}})
                ]
            },
            'the container function of its pod cannot be started (CreateContainerConfigError): secret "s" not found',
            True,
            id="a Secret is missing",
        ),
        pytest.param(
            {
                "initContainerStatuses": [
                    container(
                        {"waiting": {"reason": "CrashLoopBackOff"}},
                        last={"terminated": {"reason": "Error", "exitCode": 3}},
                        name="prepare",
                    )
                ]
            },
            "the container prepare of its pod ends again and again (Error, exit status 3)",
            True,
            id="an init container that fails",
        ),
        pytest.param(
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
            "its pod failed: The node was low on resource: memory.",
            True,
            id="evicted",
        ),
    ],
)
def test_trouble_is_told_in_words_that_somebody_can_act_on(status: Object, words: str, hopeless: bool) -> None:
    trouble = pod_state(pod(**status)).trouble
    assert trouble is not None
    assert (trouble.words, trouble.hopeless) == (words, hopeless)


def test_a_container_that_is_being_made_is_no_trouble() -> None:
    assert pod_state(pod(containerStatuses=[container({"waiting": {"reason": "ContainerCreating"}})])).trouble is None


def test_a_long_message_is_cut() -> None:
    trouble = pod_state(pod(phase="Failed", message="x" * 5000)).trouble
    assert trouble is not None
    assert len(trouble.words) == 400


def test_a_deployment_says_why_no_pod_can_be_made() -> None:
    conditions = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]
    deployment = pod(conditions=conditions)
    deployment["spec"] = {"replicas": 3}
    state = deployment_state(trimmed(deployment))
    assert (state.replicas, state.failure) == (3, "no pod can be made for it: exceeded quota")


def ended(reason: str, code: int, at: str = "2026-01-01T12:00:20Z") -> Object:
    return {"terminated": {"reason": reason, "exitCode": code, "finishedAt": at}}


OUT_OF_MEMORY = Ending("signal: killed", True)
SINCE = datetime(2026, 1, 1, 12, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        pytest.param(pod(containerStatuses=[container(ended("OOMKilled", 137))]), OUT_OF_MEMORY, id="out of memory"),
        pytest.param(
            pod(containerStatuses=[container({"running": {}}, last=ended("OOMKilled", 137))]), OUT_OF_MEMORY, id="and again"
        ),
        pytest.param(pod(containerStatuses=[container(ended("Error", 137))]), Ending("signal: killed", False), id="killed"),
        pytest.param(pod(containerStatuses=[container(ended("Error", 1))]), "otherwise", id="the supervisor failed"),
        pytest.param(pod(containerStatuses=[container({"running": {}})]), None, id="it runs"),
        pytest.param(
            pod(containerStatuses=[container({"running": {}}, last=ended("OOMKilled", 137, "2026-01-01T12:00:05Z"))]),
            None,
            id="it was killed before",
        ),
        pytest.param(pod(reason="Evicted", containerStatuses=[container(ended("Error", 137))]), "otherwise", id="evicted"),
        pytest.param(pod(), None, id="nothing is known"),
    ],
)
def test_how_a_container_ended(found: Object, says: Ending | str | None) -> None:
    assert exit_of(found, since=SINCE) == says


def test_a_pod_that_is_deleted_is_not_the_function_s_fault() -> None:
    deleted = pod(containerStatuses=[container(ended("Error", 137))])
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert exit_of(deleted, since=SINCE) == "otherwise"


class Api:
    """Answers with one state of the pod after the other, the last one for ever."""

    def __init__(self, *answers: Object | Exception) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def get(self, path: str, /) -> Object:
        assert path == "/api/v1/namespaces/shop/pods/f-1"
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def death(api: Api, supervisor: str = "pod-uid.1") -> Ending | None:
    async def at_once(seconds: float) -> None:
        pass

    known = PodIdentity("shop", "f-1", "pod-uid", "uid-f.1.x")
    deaths = Deaths(api, identity=lambda uid: known if uid in {"pod-uid", "old-uid"} else None, sleep=at_once, now=lambda: NOW)
    return asyncio.run(deaths(supervisor, 15.0))


RUNS = pod(containerStatuses=[container({"running": {}})])
KILLED = pod(containerStatuses=[container(ended("OOMKilled", 137))])


def test_the_kubelet_is_given_a_moment_to_say_it() -> None:
    api = Api(RUNS, RUNS, KILLED)
    assert death(api) == OUT_OF_MEMORY
    assert api.asked == 3


def test_nobody_waits_for_ever() -> None:
    api = Api(RUNS)
    assert death(api) is None
    assert api.asked == 12


@pytest.mark.parametrize("answer", [NotFound("pods"), Unavailable("connection refused")])
def test_who_knows_nothing_says_nothing(answer: Exception) -> None:
    assert death(Api(answer)) is None
    assert death(Api(KILLED), "stranger.1") is None
    assert death(Api(KILLED), "old-uid.1") is None
