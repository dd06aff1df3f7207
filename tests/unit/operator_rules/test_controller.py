"""The controller against an API server in memory: what there is follows what is asked for, through faults, and then nothing is written."""

from __future__ import annotations

import asyncio
import base64

import pytest

from kappa_crds.api import Forbidden, Invalid, Unavailable
from kappa_operator.cache import ref_of
from kappa_operator.controller import Controller
from kappa_operator.settings import load
from operator_world import ACCOUNT, BLOB, LINGER, RESOURCES, World, running
from virtual_time import virtual


@virtual
async def test_a_function_becomes_a_deployment_at_zero_with_what_its_pods_need() -> None:
    async with running() as world:
        world.function()
        await world.settled()
        (found,) = world.deployments()
        assert found["spec"]["replicas"] == 0
        assert found["spec"]["template"]["spec"]["serviceAccountName"] == "kappa-kappa-default"
        assert {each["metadata"]["name"] for each in world.api.of_kind("ServiceAccount")} == {"kappa-kappa-default"}
        assert {each["metadata"]["name"] for each in world.api.of_kind("NetworkPolicy")} == {"kappa-functions"}
        (authority,) = world.api.of_kind("ConfigMap")
        assert authority["data"] == {"ca.crt": "PEM"}
        assert world.condition("Function") == ("True", "Ready")


@virtual
async def test_the_namespace_has_its_policy_before_the_first_deployment_is_made() -> None:
    async with running() as world:
        world.function()
        await world.settled()
        order = [path.rsplit("/", 1)[-1] for verb, path in world.api.writes if verb in {"apply", "create"}]
        assert order.index("kappa-functions") < order.index("deployments")
        assert order.index("kappa-link-ca") < order.index("deployments")


@virtual
async def test_looking_at_everything_again_writes_nothing() -> None:
    async with running() as world:
        world.function()
        world.version(1)
        world.alias("1")
        world.function("other", vpcConfig={"subnetIDs": ["s"]})
        await world.settled()
        world.api.writes.clear()
        for kind in ("Function", "FunctionVersion", "Alias", "Namespace"):
            for thing in world.controller.cache.of_kind(kind):
                world.controller.enqueue(ref_of(kind, thing))
        await world.settled()
        assert world.api.writes == []


@virtual
async def test_a_new_leader_finds_everything_done_and_writes_nothing() -> None:
    async with running() as world:
        world.function()
        world.version(1)
        world.alias("1")
        await world.settled()
        world.api.writes.clear()
        next_one = Controller(world.api, world.settings, now=world.now)
        for thing in list(world.api.objects.values()):
            next_one.hear(thing["kind"], False, thing)
        next_one.begin()
        tasks = [asyncio.create_task(each) for each in (next_one.surroundings.run(), next_one.queue.run())]
        await asyncio.sleep(10)
        assert world.api.writes == []
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@virtual
async def test_an_update_is_a_new_deployment_and_the_old_one_goes_when_it_has_no_pod() -> None:
    async with running() as world:
        world.function()
        await world.settled()
        (old,) = world.deployments()
        world.scale(old, 2)
        world.function(memorySize=256)
        await world.settled(10 * LINGER)
        assert len(world.deployments()) == 2
        world.scale(next(each for each in world.deployments() if each["metadata"]["name"] == old["metadata"]["name"]), 0)
        await world.settled(2 * LINGER)
        (left,) = world.deployments()
        assert left["metadata"]["name"] != old["metadata"]["name"]
        assert left["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["memory"] == "320Mi"


@virtual
async def test_replicas_of_a_deployment_that_exists_are_never_written() -> None:
    async with running() as world:
        world.function()
        await world.settled()
        (made,) = world.deployments()
        world.scale(made, 3)
        world.alias("$LATEST")
        world.function(description="new words")
        await world.settled(100)
        scaled = next(each for each in world.deployments() if each["metadata"]["name"] == made["metadata"]["name"])
        assert scaled["spec"]["replicas"] == 3
        assert not [path for verb, path in world.api.writes if verb != "create" and "/deployments/" in path]


@virtual
async def test_the_status_counts_environments_once_they_have_stood_still_and_forgets_those_that_went() -> None:
    async with running() as world:
        world.function()
        await world.settled()
        (made,) = world.deployments()

        def total() -> int | None:
            (function,) = world.api.of_kind("Function")
            found: int | None = function["status"].get("environments", {}).get("total")
            return found

        def written() -> int:
            return [path for _, path in world.api.writes].count(f"{RESOURCES.format('shop', 'functions')}/hello/status")

        before = written()
        for replicas in (1, 4, 3, 0):
            world.scale(made, replicas)
            await world.settled(1)
        assert (total(), written()) == (None, before), "what came and went is not spoken of"
        world.scale(made, 3)
        await world.settled(20)
        assert (total(), written()) == (3, before + 1)
        world.scale(made, 0)
        await world.settled(20)
        assert (total(), written()) == (0, before + 2)
        await world.settled(3600)
        assert written() == before + 2


@virtual
async def test_an_alias_keeps_the_deployment_of_its_version() -> None:
    async with running() as world:
        world.function()
        world.version(1)
        await world.settled()
        assert world.versions_deployed() == ["$LATEST"]
        world.alias("1")
        await world.settled()
        assert world.versions_deployed() == ["$LATEST", "1"]
        world.controlled()
        world.api.remove(RESOURCES.format("shop", "aliases") + "/hello.live")
        await world.settled(2 * LINGER)
        assert world.versions_deployed() == ["$LATEST"]


@virtual
async def test_a_version_that_is_wanted_has_a_deployment_for_an_hour() -> None:
    async with running() as world:
        world.function()
        world.version(1, annotations={"lambda.kappa.dev/wanted": world.now().isoformat()})
        await world.settled()
        assert world.versions_deployed() == ["$LATEST", "1"]
        world.controlled()
        await world.settled(3590)
        assert world.versions_deployed() == ["$LATEST", "1"]
        await world.settled(10 + 2 * LINGER)
        assert world.versions_deployed() == ["$LATEST"]


@virtual
async def test_what_people_wrote_becomes_a_child_of_its_function_also_when_it_came_first() -> None:
    async with running() as world:
        world.alias("1")
        await world.settled()
        assert world.condition("Alias", "hello.live") == ("False", "FunctionNotFound")
        world.function()
        world.version(1)
        await world.settled()
        (alias,) = world.api.of_kind("Alias")
        assert alias["metadata"]["ownerReferences"][0]["uid"] == "uid-hello"
        assert alias["metadata"]["labels"] == {"lambda.kappa.dev/function": "hello"}
        assert world.condition("Alias", "hello.live") == ("True", "Ready")
        assert world.versions_deployed() == ["$LATEST", "1"]


@virtual
async def test_an_alias_of_a_version_that_is_not_there_says_so_until_it_is() -> None:
    async with running() as world:
        world.function()
        world.alias("3")
        await world.settled()
        assert world.condition("Alias", "hello.live") == ("False", "VersionNotFound")
        assert ("hello.live", "VersionNotFound") in world.events()
        world.version(3)
        await world.settled()
        assert world.condition("Alias", "hello.live") == ("True", "Ready")
        assert ("hello.live", "Ready") in world.events()


@virtual
async def test_a_function_whose_layer_is_not_there_says_so_until_it_is() -> None:
    async with running() as world:
        world.function(layers=["tools:1"])
        await world.settled()
        assert world.condition("Function") == ("False", "LayerNotFound")
        world.resource("LayerVersion", "tools.1", {"layerName": "tools", "version": 1, "content": BLOB})
        await world.settled()
        assert world.condition("Function") == ("True", "Ready")
        assert world.condition("LayerVersion", "tools.1") == ("True", "Ready")


@virtual
async def test_of_two_that_claim_a_name_the_older_is_served_and_the_other_after_it_is_gone() -> None:
    async with running() as world:
        world.namespace("other", account=ACCOUNT)
        world.function("second", namespace="other", functionName="hello", metadata={"creationTimestamp": "2026-01-02T00:00:00Z"})
        await world.settled()
        assert world.condition("Function", "second", namespace="other") == ("True", "Ready")
        world.function()
        await world.settled()
        assert world.condition("Function") == ("True", "Ready")
        assert world.condition("Function", "second", namespace="other") == ("False", "NameConflict")
        assert world.condition("Function", "second", "NameConflict", namespace="other") == ("True", "NameTaken")
        world.controlled()
        await world.settled(2 * LINGER)
        assert {each["metadata"]["namespace"] for each in world.deployments()} == {"shop"}
        world.api.remove(RESOURCES.format("shop", "functions") + "/hello")
        await world.settled()
        assert world.condition("Function", "second", namespace="other") == ("True", "Ready")
        assert world.condition("Function", "second", "NameConflict", namespace="other") is None


@virtual
async def test_equal_names_in_different_accounts_are_no_conflict() -> None:
    async with running() as world:
        world.namespace("other", account="222222222222")
        world.function()
        world.function("hello", namespace="other")
        await world.settled()
        assert world.condition("Function") == ("True", "Ready")
        assert world.condition("Function", namespace="other") == ("True", "Ready")


@virtual
async def test_a_namespace_without_an_account_is_not_served_until_it_has_one() -> None:
    async with running() as world:
        world.namespace("elsewhere")
        world.function(namespace="elsewhere")
        await world.settled()
        assert world.deployments() == []
        assert world.condition("Function", namespace="elsewhere") == ("False", "NamespaceNotServed")
        world.namespace("elsewhere", account="333333333333")
        await world.settled()
        assert len(world.deployments()) == 1


@virtual
async def test_nothing_is_made_in_a_namespace_that_is_being_deleted() -> None:
    async with running() as world:
        world.api.put(
            "/api/v1/namespaces",
            {
                "kind": "Namespace",
                "apiVersion": "v1",
                "metadata": {
                    "name": "shop",
                    "labels": {"lambda.kappa.dev/account-id": ACCOUNT},
                    "deletionTimestamp": "2026-01-01T00:00:00Z",
                },
            },
        )
        world.function()
        await world.settled()
        assert world.api.writes == []


@virtual
async def test_what_the_api_server_refuses_is_said_and_tried_again() -> None:
    async with running() as world:

        def quota(verb: str, path: str) -> None:
            if verb == "create" and path.endswith("/deployments"):
                raise Forbidden("exceeded quota: deployments.apps")

        world.api.faults = quota
        world.function()
        await world.settled()
        assert world.condition("Function") == ("False", "Refused")
        world.api.faults = lambda verb, path: None
        await world.settled(600)
        assert world.condition("Function") == ("True", "Ready")
        assert world.events().count(("hello", "Refused")) == 1


@pytest.mark.parametrize("failing", range(1, 13))
def test_a_write_that_fails_anywhere_on_the_way_is_made_good(failing: int) -> None:
    @virtual
    async def scenario() -> None:
        asked = 0

        def once(verb: str, path: str) -> None:
            nonlocal asked
            asked += verb != "get"
            if asked == failing:
                asked += 1
                raise Unavailable("the API server is away")

        async with running() as world:
            world.api.faults = once
            world.function()
            world.version(1)
            world.alias("1")
            await world.settled(60)
            assert world.versions_deployed() == ["$LATEST", "1"]
            assert world.condition("Function") == ("True", "Ready")
            assert world.condition("Alias", "hello.live") == ("True", "Ready")

    scenario()


@virtual
async def test_another_image_reaches_a_deployment_without_pods_and_spares_one_with() -> None:
    async with running(image_tag="old") as world:
        world.function()
        world.function("busy")
        await world.settled()
        world.controlled()
        busy = next(each for each in world.deployments() if each["metadata"]["name"].startswith("busy"))
        world.scale(busy, 1)
        next_one = Controller(world.api, load(namespace="kappa-system", image_tag="new"), now=world.now)
        await world.stop()
        world.api.listeners[:] = [next_one.hear]
        for thing in list(world.api.objects.values()):
            next_one.hear(thing["kind"], False, thing)
        next_one.begin()
        tasks = [asyncio.create_task(each) for each in (next_one.surroundings.run(), next_one.queue.run())]
        await asyncio.sleep(10)
        images = {
            each["metadata"]["name"].split("-")[0]: each["spec"]["template"]["spec"]["containers"][0]["image"]
            for each in world.deployments()
        }
        assert images == {"hello": "kappa/runtime-python3.12:new", "busy": "kappa/runtime-python3.12:old"}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        world.start()


@virtual
async def test_a_deployment_that_the_scaler_takes_up_at_that_moment_is_not_deleted() -> None:
    async with running() as world:
        world.function()
        world.version(1)
        world.alias("1")
        await world.settled()
        world.controlled()
        world.api.remove(RESOURCES.format("shop", "aliases") + "/hello.live")

        def scaled_up(verb: str, path: str) -> None:
            if verb == "delete":
                world.api.faults = lambda verb, path: None
                world.api.listeners.clear()  # the watch is late
                world.scale(world.api.objects[path], 1)

        world.api.faults = scaled_up
        await world.settled(2 * LINGER)
        assert world.versions_deployed() == ["$LATEST", "1"]


@virtual
async def test_a_policy_that_somebody_deletes_or_changes_is_there_again() -> None:
    async with running() as world:
        world.function()
        await world.settled()
        path = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies"
        (policy,) = world.api.of_kind("NetworkPolicy")
        wanted = policy["spec"]
        world.api.remove(f"{path}/kappa-functions")
        await world.settled()
        (policy,) = world.api.of_kind("NetworkPolicy")
        assert policy["spec"] == wanted
        world.api.put(path, {**policy, "spec": {**wanted, "egress": []}})
        await world.settled()
        (policy,) = world.api.of_kind("NetworkPolicy")
        assert policy["spec"] == wanted


@virtual
async def test_a_service_account_that_stands_for_the_role_is_used_instead_of_one_of_our_own() -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/orders"
    async with running() as world:
        world.api.put(
            "/api/v1/namespaces/shop/serviceaccounts",
            {
                "kind": "ServiceAccount",
                "apiVersion": "v1",
                "metadata": {"name": "theirs", "namespace": "shop", "annotations": {"lambda.kappa.dev/role": role}},
            },
        )
        world.function(role=role)
        await world.settled()
        (found,) = world.deployments()
        assert found["spec"]["template"]["spec"]["serviceAccountName"] == "theirs"
        assert [each["metadata"]["name"] for each in world.api.of_kind("ServiceAccount")] == ["theirs"]


@virtual
async def test_a_service_account_that_somebody_annotates_later_is_taken_while_there_is_no_pod() -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/orders"
    async with running() as world:
        world.function(role=role)
        await world.settled()
        world.controlled()
        world.api.put(
            "/api/v1/namespaces/shop/serviceaccounts",
            {
                "kind": "ServiceAccount",
                "apiVersion": "v1",
                "metadata": {"name": "theirs", "namespace": "shop", "annotations": {"lambda.kappa.dev/role": role}},
            },
        )
        await world.settled()
        (found,) = world.deployments()
        assert found["spec"]["template"]["spec"]["serviceAccountName"] == "theirs"


@virtual
async def test_without_the_links_authority_nothing_starts_and_the_function_says_why() -> None:
    world = World()
    world.api.objects.pop("/api/v1/namespaces/kappa-system/secrets/kappa-link-tls")
    world.start()
    world.function()
    await world.settled(30)
    assert world.deployments() == []
    assert world.condition("Function") == ("Unknown", "NamespaceNotReady")
    world.api.put(
        "/api/v1/namespaces/kappa-system/secrets",
        {
            "kind": "Secret",
            "apiVersion": "v1",
            "metadata": {"name": "kappa-link-tls", "namespace": "kappa-system"},
            "data": {"ca.crt": base64.b64encode(b"PEM").decode()},
        },
    )
    await world.settled(30)
    assert world.condition("Function") == ("True", "Ready")
    await world.stop()


@virtual
async def test_settings_without_effect_are_named() -> None:
    async with running() as world:
        world.function(vpcConfig={"subnetIDs": ["s"]}, kmsKeyARN="arn:aws:kms:eu-central-1:1:key/1")
        await world.settled()
        assert world.condition("Function", type_="StoredOnly") == ("True", "NotApplied")
        world.function()
        await world.settled()
        assert world.condition("Function", type_="StoredOnly") is None


@virtual
async def test_conditions_of_the_gateway_are_left_alone() -> None:
    async with running() as world:
        made = world.function()
        scalable = {
            "type": "Scalable",
            "status": "True",
            "reason": "Up",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        made["status"]["conditions"] = [scalable]
        world.api.put(RESOURCES.format("shop", "functions"), made)
        await world.settled()
        (thing,) = world.api.of_kind("Function")
        assert scalable in thing["status"]["conditions"]
        assert world.condition("Function") == ("True", "Ready")


@virtual
async def test_a_transition_is_one_event_however_often_it_happens() -> None:
    async with running() as world:
        world.function()
        for _ in range(3):
            world.alias("7")
            await world.settled()
            world.alias("$LATEST")
            await world.settled()
        assert sorted(world.events()) == [("hello.live", "Ready"), ("hello.live", "VersionNotFound")]
        counts = {each["reason"]: each["series"]["count"] for each in world.api.of_kind("Event")}
        assert counts == {"Ready": 3, "VersionNotFound": 3}


@virtual
async def test_a_template_that_the_api_server_will_not_take_is_said() -> None:
    async with running() as world:

        def invalid(verb: str, path: str) -> None:
            if verb == "create" and path.endswith("/deployments"):
                raise Invalid("spec.template.spec.runtimeClassName: no such class")

        world.api.faults = invalid
        world.function()
        await world.settled()
        assert world.condition("Function") == ("False", "Refused")
