"""DeploymentProvider with real Deployments, ReplicaSets, kubelets: which pods go, what troubles are called, whose tokens are good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import pytest

from kappa_crds import labels
from kappa_crds.api import Conflict, Invalid, Object, api_path
from kappa_gateway.kubernetes.deaths import Deaths
from kappa_gateway.kubernetes.identities import Identities
from kappa_gateway.kubernetes.pods import exit_of
from kappa_gateway.links.killed import Ending
from kappa_gateway.links.server import PodIdentity
from scaler_cluster import DEPLOYMENT, MANAGER, REVISION, Scene, scene, spec, until


def in_a_scene(test: Callable[[Scene], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        async def main() -> None:
            async with asyncio.timeout(150), scene() as made:
                await test(made)

        asyncio.run(main())

    del run.__wrapped__  # or pytest takes the parameter for a fixture
    return run


@in_a_scene
async def test_from_zero_to_many_and_back_without_taking_a_pod_that_is_used(it: Scene) -> None:
    await it.deployment()
    await it.begin()
    await it.provider.start(spec(), ["e1", "e2", "e3", "e4"])
    supervisors = [await it.greet(pod) for pod in await it.running(4)]
    assert sorted(it.links.linked.values()) == [["e1"], ["e2"], ["e3"], ["e4"]]
    # One after the other, the oldest, the youngest, whichever: always the one that is free goes.
    for number, index in ((3, 2), (2, 0), (1, 1), (0, 0)):
        leaving = supervisors.pop(index)
        it.ends(leaving)
        left = await it.running(number)
        assert {pod["metadata"]["uid"] for pod in left} == {supervisor.partition(".")[0] for supervisor in supervisors}
        assert await it.replicas() == number
    await it.provider.start(spec(), ["e5"])
    await it.running(1)


@in_a_scene
async def test_writes_are_compare_and_swap(it: Scene) -> None:
    await it.deployment()
    path = api_path("apps/v1", "deployments", namespace=it.namespace, name=DEPLOYMENT, subresource="scale")
    scale = await it.api.get(path)
    for before, number, fits in ((5, 6, False), (0, 6, True), (0, 7, False), (6, 8, True)):
        test = (
            {"op": "test", "path": "/spec/replicas", "value": before} if before else {"op": "test", "path": "/spec", "value": {}}
        )
        operations: list[Object] = [test, {"op": "add", "path": "/spec/replicas", "value": number}]
        if fits:
            assert (await it.api.json_patch(path, operations, field_manager=MANAGER))["spec"]["replicas"] == number
        else:
            with pytest.raises(Invalid):
                await it.api.json_patch(path, operations, field_manager=MANAGER)
    stale = {"metadata": {"resourceVersion": scale["metadata"]["resourceVersion"]}, "spec": {"replicas": 1}}
    with pytest.raises(Conflict):
        await it.api.merge_patch(path, stale, field_manager=MANAGER)
    await it.api.merge_patch(path, {"spec": {"replicas": 0}}, field_manager=MANAGER)


@in_a_scene
async def test_the_next_holder_counts_what_it_finds_and_lets_the_rest_go(it: Scene) -> None:
    await it.deployment()
    await it.begin()
    await it.provider.start(spec(), ["e1", "e2"])
    first, second = [await it.greet(pod) for pod in await it.running(2)]
    await it.provider.close()
    assert await it.replicas() == 2
    it.links.linked = {first: ["e1"]}  # the other one is not linked to the next holder
    it.provider = it.new_provider()
    await it.provider.open()
    assert [known.environment_id for known in it.provider.inherit()] == [f"pod:{second.partition('.')[0]}"]
    it.provider.begin()
    await asyncio.sleep(6)
    assert await it.replicas() == 2
    it.links.linked[second] = []
    it.provider.supervisor_up(second)
    (left,) = await it.running(1)
    assert left["metadata"]["uid"] == first.partition(".")[0]


@in_a_scene
async def test_a_deleted_pod_takes_its_environment_with_it_and_the_next_one_gets_another(it: Scene) -> None:
    await it.deployment()
    await it.begin()
    await it.provider.start(spec(), ["e1"])
    (pod,) = await it.running(1)
    supervisor = await it.greet(pod)
    del it.links.linked[supervisor]
    it.provider.supervisor_down(supervisor)
    await it.api.delete(api_path("v1", "pods", namespace=it.namespace, name=pod["metadata"]["name"]))
    await until(lambda: it.ended)
    assert it.ended[0][:2] == (supervisor, ["e1"])
    assert it.ended[0][2].startswith("its pod ")
    await it.provider.start(spec(), ["e2"])
    (other,) = await it.running(1)
    await it.greet(other)
    assert ["e2"] in it.links.linked.values()


@in_a_scene
async def test_an_image_that_is_not_there_is_named(it: Scene) -> None:
    await it.deployment(image="kappa/there-is-no-such-image:dev")
    await it.begin()
    await it.provider.start(spec(), ["e1"])
    await until(lambda: it.ended, seconds=90)
    ((_, environments, why),) = it.ended
    assert environments == ["e1"]
    assert why.startswith("the image kappa/there-is-no-such-image:dev cannot be pulled (")
    assert it.causes[0].startswith("the image kappa/there-is-no-such-image:dev cannot be pulled (ErrImagePull)")

    async def none() -> bool:
        return await it.replicas() == 0

    await until(none)


@in_a_scene
async def test_a_quota_and_a_cluster_without_room_are_told_in_their_own_words(it: Scene) -> None:
    await it.deployment(memory="900Gi")
    await it.begin()
    await it.provider.start(spec(), ["e1"])
    await until(lambda: it.causes)
    assert it.causes[0].startswith("no node has room for its pod: 0/")
    await it.provider.stop(REVISION, ["e1"])

    async def none() -> bool:
        return await it.replicas() == 0

    await until(none)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await it.api.create(api_path("v1", "resourcequotas", namespace=it.namespace), quota, field_manager=MANAGER)

    async def in_force() -> bool:
        found = await it.api.get(api_path("v1", "resourcequotas", namespace=it.namespace, name="none"))
        return "hard" in found.get("status", {})

    await until(in_force)
    it.ended.clear()
    await it.provider.start(spec(), ["e2"])
    await until(lambda: it.ended)
    assert "exceeded quota: none" in it.ended[0][2]


@in_a_scene
async def test_a_container_that_the_kernel_kills_is_known_to_have_been_killed(it: Scene) -> None:
    began = datetime.now(UTC) - timedelta(seconds=2)
    await it.deployment(command=["sh", "-c", "sleep 1; exec tail /dev/zero"], replicas=1)

    async def killed() -> tuple[str, str, object] | None:
        found, _ = await it.api.list(api_path("v1", "pods", namespace=it.namespace))
        says = exit_of(found[0], since=began) if found else None
        return (found[0]["metadata"]["name"], found[0]["metadata"]["uid"], says) if says is not None else None

    pod, uid, says = await until(killed)
    assert says == Ending("signal: killed", True)
    identity = PodIdentity(it.namespace, pod, uid, REVISION)
    assert await Deaths(it.api, identity=lambda _: identity)(f"{uid}.1", 60.0) == Ending("signal: killed", True)


@in_a_scene
async def test_a_token_is_good_for_its_own_pod_and_audience_and_no_longer_than_the_pod(it: Scene) -> None:
    async def token(account: str, *, audience: str = labels.TOKEN_AUDIENCE, pod: Object | None = None) -> str:
        request: Object = {"audiences": [audience], "expirationSeconds": 600}
        if pod is not None:
            metadata = pod["metadata"]
            request["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        path = api_path("v1", "serviceaccounts", namespace=it.namespace, name=account, subresource="token")
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": request}
        made: str = (await it.api.post(path, body))["status"]["token"]
        return made

    await it.deployment(replicas=1)
    (pod,) = await it.running(1)
    identities = Identities(it.api, namespace=it.namespace, account="default")
    good = await token("default", pod=pod)
    metadata = pod["metadata"]
    assert await identities.pod(good) == PodIdentity(it.namespace, metadata["name"], metadata["uid"], REVISION)
    assert await identities.pod(await token("default", audience="somebody-else", pod=pod)) is None
    assert await identities.pod(await token("default")) is None, "bound to no pod"
    assert await identities.pod(good[:-8] + "AAAAAAAA") is None
    assert await identities.gateway(await token("default"))
    assert not await Identities(it.api, namespace=it.namespace, account="other").gateway(await token("default"))
    path = api_path("v1", "pods", namespace=it.namespace, name=metadata["name"])
    await it.api.delete(path)

    async def refused() -> bool:
        return await identities.pod(good) is None

    await until(refused)
