"""The ResourceStore where others write as well: other gateways, people with kubectl, GitOps, the garbage collector, crashes in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import wraps
from typing import Any

import msgspec
import pytest

from cluster_stores import OTHER_ACCOUNT, World, manifest, world
from kappa_core.ports.store import AlreadyExists, Change, Conflict, OwnedElsewhere, Rejected, StoreUnavailable
from kappa_core.resources import AccountId, Alias, Function, Key, ProvisionedConcurrency, Resource
from kappa_core.rules import publish, states
from kappa_core.rules.configuration import NO_CODE
from kappa_crds import labels
from kappa_crds.api import Forbidden, KubernetesApi, Object, Unavailable, api_path
from kappa_gateway.kubernetes.store import KubernetesResourceStore
from store_samples import ACCOUNT, CODE, REGION, alias, function, version

KEY = function().key
PATIENCE_SECONDS = 60


def in_a_world(test: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        async def main() -> None:
            async with asyncio.timeout(PATIENCE_SECONDS), world() as made:
                await test(made)

        asyncio.run(main())

    del run.__wrapped__  # or pytest takes the parameter for a fixture
    return run


async def until(watch: AsyncGenerator[Change, None], right: Callable[[Change], bool]) -> Change:
    async for change in watch:
        if right(change):
            return change
    raise AssertionError("the watch ended")


def described(resource: Function, description: str) -> Function:
    return msgspec.structs.replace(
        resource, configuration=msgspec.structs.replace(resource.configuration, description=description)
    )


def function_of(found: Resource | None) -> Function:
    assert isinstance(found, Function)
    return found


async def settle(store: KubernetesResourceStore, found: Resource | None) -> Function:
    """As the settler does: take the code in and say that it serves."""
    assert isinstance(found, Function)
    configuration = found.configuration
    if configuration.code == NO_CODE:
        configuration = msgspec.structs.replace(configuration, code=msgspec.structs.replace(CODE, source="inline"))
    return await store.update(msgspec.structs.replace(found, configuration=configuration, status=states.settled(configuration)))


# -- other gateways ----------------------------------------------------------------------------------------------------------
@in_a_world
async def test_what_one_gateway_wrote_every_other_one_reads_at_once(world: World) -> None:
    here, there = await world.store(), await world.store()
    for number in range(5):
        created = await here.create(function(f"f{number}"))
        assert await there.get(created.key) == created
        updated = await there.update(described(created, "there"))
        assert await here.get(created.key) == updated
        assert await here.list("Function") == await there.list("Function")
        await there.delete(updated.key)
        assert await here.get(updated.key) is None


@in_a_world
async def test_a_listing_reads_the_namespace_once_however_many_pages_it_has_and_begins_with_all_that_there_is(
    world: World,
) -> None:
    here, there = await world.store(), await world.store()
    made = [(await there.create(function(f"f{number}"))).key for number in range(7)]
    lists: list[str] = []
    ask = world.api.list

    async def counted(path: str, **options: Any) -> tuple[list[Object], str]:
        lists.append(path)
        return await ask(path, **options)

    world.api.list = counted  # type: ignore[method-assign]
    found: list[Key] = []
    while page := await here.list("Function", account=ACCOUNT, after=found[-1] if found else None, limit=3):
        found += [each.key for each in page]
    assert found == made
    assert len(lists) == 1
    updated = await here.update(described(function_of(await here.get(made[5])), "between two pages"))
    await here.delete(made[6])
    assert await here.list("Function", account=ACCOUNT, after=made[4], limit=3) == [updated]
    assert await there.list("Function", account=ACCOUNT, after=made[4], limit=3) == [updated]
    assert len(lists) == 2, "a listing that another gateway began is a new one here"


@in_a_world
async def test_two_gateways_never_both_create_and_lose_no_update(world: World) -> None:
    stores = [await world.store(), await world.store()]
    answers = await asyncio.gather(
        *(stores[number % 2].create(function(description=str(number))) for number in range(10)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["AlreadyExists"] * 9 + ["Function"]

    async def tag(store: KubernetesResourceStore, name: str) -> None:
        while True:
            current = await store.get(KEY)
            assert isinstance(current, Function)
            try:
                await store.update(msgspec.structs.replace(current, tags=current.tags | {name: "x"}))
            except Conflict:
                continue
            return

    await asyncio.gather(*(tag(stores[number % 2], str(number)) for number in range(8)))
    final = await stores[0].get(KEY)
    assert isinstance(final, Function)
    assert set(final.tags) == {str(number) for number in range(8)}


@in_a_world
async def test_a_watch_tells_what_other_gateways_do_deletions_with_their_last_state(world: World) -> None:
    here, there = await world.store(), await world.store()
    async with aclosing(here.watch()) as watch:
        created = await there.create(function())
        assert (await until(watch, lambda change: change.resource == created)).type == "PUT"
        updated = await there.update(described(created, "there"))
        assert (await until(watch, lambda change: change.resource == updated)).type == "PUT"
        await there.delete(KEY)
        assert await anext(watch) == Change("DELETE", KEY, updated)


@in_a_world
async def test_numbers_are_given_once_by_all_gateways_together_and_outlive_what_they_numbered(world: World) -> None:
    here, there = await world.store(), await world.store()
    created = await here.create(function())
    counter = publish.counter(created)
    numbers = await asyncio.gather(*(store.allocate(counter) for store in (here, there) for _ in range(8)))
    assert sorted(numbers) == list(range(1, 17))
    await here.delete(KEY)
    assert await there.allocate(counter) == 17
    assert await (await world.store()).allocate(counter) == 18


# -- kubectl and GitOps ------------------------------------------------------------------------------------------------------
@in_a_world
async def test_a_function_made_by_kubectl_under_another_name_is_found_by_its_own(world: World) -> None:
    here = await world.store()
    await world.apply("Function", "resource-a", manifest(functionName="f"), manager="kubectl")
    found = await here.get(KEY)
    assert isinstance(found, Function)
    assert (found.configuration.runtime, found.status.state) == ("python3.12", "Pending")
    assert [each.key for each in await here.list("Function", name="f")] == [KEY]
    with pytest.raises(AlreadyExists):
        await here.create(function())
    # The API makes its children beside it.
    live = await here.create(msgspec.structs.replace(alias("live"), function_uid=found.meta.uid))
    obj = await world.api.get(world.path("Alias", "resource-a.live"))
    assert obj["metadata"]["ownerReferences"][0]["uid"] == found.meta.uid
    assert obj["metadata"]["labels"][labels.FUNCTION] == "resource-a"
    assert await (await world.store()).get(live.key) == live


@in_a_world
async def test_what_belongs_to_a_function_is_made_in_its_namespace(world: World) -> None:
    store, name = await world.store(), f"{world.namespace}-second"
    await world.make_namespace(name, account=ACCOUNT)
    path = api_path("lambda.kappa.dev/v1alpha1", "functions", namespace=name, name="f")
    body = {"apiVersion": "lambda.kappa.dev/v1alpha1", "kind": "Function", "metadata": {"name": "f"}, "spec": manifest()}
    async with aclosing(store.watch()) as watch:
        made = await world.api.apply(path, body, field_manager="kubectl")
        await until(watch, lambda change: change.key == KEY)
    live = await store.create(msgspec.structs.replace(alias("live"), function_uid=made["metadata"]["uid"]))
    place = store.place(live.key)
    assert place is not None
    assert (place.namespace, place.name) == (name, "f.live")
    # An owner in another namespace would have the garbage collector delete it.
    assert await (await world.store()).get(live.key) == live


@in_a_world
async def test_a_function_that_leaves_its_name_out_is_listed_by_it(world: World) -> None:
    store = await world.store()
    await world.apply("Function", "plain", manifest(), manager="kubectl")
    assert [each.key.name for each in await store.list("Function", name="plain")] == ["plain"]
    assert await store.get(Key("Function", ACCOUNT, REGION, "plain")) is not None


@in_a_world
async def test_an_edit_by_kubectl_is_an_update_in_progress(world: World) -> None:
    store = await world.store()
    settled = await settle(store, await store.create(function()))
    assert settled.status.last_update_status == "Successful"
    async with aclosing(store.watch(replay=False)) as watch:
        await world.api.merge_patch(world.path("Function", "f"), {"spec": {"memorySize": 512}}, field_manager="kubectl-edit")
        told = (await anext(watch)).resource
        assert isinstance(told, Function)
        assert (told.configuration.memory_size, told.status.last_update_status) == (512, "InProgress")
        assert told.status.serving is not None
        assert told.status.serving.memory_size == 128
        assert await store.get(KEY) == told


@in_a_world
async def test_a_field_that_gitops_owns_is_refused_with_its_owner_and_all_others_may_change(world: World) -> None:
    store = await world.store()
    spec = manifest(timeout=7, environment={"variables": {"STAGE": "1"}})
    await world.apply("Function", "f", spec, manager="argocd-controller")
    found = await settle(store, await store.get(KEY))
    with pytest.raises(OwnedElsewhere, match=r"\.spec\.timeout by 'argocd-controller'"):
        await store.update(msgspec.structs.replace(found, configuration=msgspec.structs.replace(found.configuration, timeout=8)))
    with pytest.raises(OwnedElsewhere, match=r"\.spec\.environment by 'argocd-controller'"):
        await store.update(
            msgspec.structs.replace(found, configuration=msgspec.structs.replace(found.configuration, environment=None))
        )
    assert await store.get(KEY) == found
    updated = await store.update(msgspec.structs.replace(described(found, "by the API"), reserved_concurrency=3))
    assert (updated.configuration.description, updated.reserved_concurrency) == ("by the API", 3)
    # The API owns what it changed and nothing else: GitOps goes on without a conflict.
    await world.apply("Function", "f", manifest(timeout=9, handler="app.other"), manager="argocd-controller")
    after = await store.get(KEY)
    assert isinstance(after, Function)
    assert (after.configuration.timeout, after.configuration.handler) == (9, "app.other")
    assert (after.configuration.description, after.reserved_concurrency) == ("by the API", 3)
    assert (await world.api.get(world.path("Function", "f")))["spec"]["code"] == manifest()["code"]


@in_a_world
async def test_the_api_and_kubectl_scale_write_the_same_number_and_what_gitops_applies_is_gitops_own(world: World) -> None:
    store = await world.store()
    await store.create(function())
    made = await store.create(alias("live"))

    async def scaled(number: int) -> None:
        path = world.path("Alias", "f.live", subresource="scale")
        await world.api.merge_patch(path, {"spec": {"replicas": number}}, field_manager="kubectl")

    async def provision(number: int) -> Alias:
        found = await store.get(made.key)
        assert isinstance(found, Alias)
        wanted = ProvisionedConcurrency(requested=number) if number else None
        return await store.update(msgspec.structs.replace(found, provisioned=wanted))

    async def requested() -> int:
        found = await store.get(made.key)
        assert isinstance(found, Alias)
        return 0 if found.provisioned is None else found.provisioned.requested

    await scaled(2)
    assert await requested() == 2
    updated = await provision(3)
    assert updated.provisioned is not None
    assert updated.provisioned.requested == 3
    await scaled(1)
    assert await requested() == 1
    assert (await provision(0)).provisioned is None
    assert await requested() == 0
    spec = {"functionName": "f", "name": "live", "functionVersion": "1", "provisionedConcurrentExecutions": 2}
    await world.api.apply(world.path("Alias", "f.live"), _object("f.live", spec), field_manager="argocd-controller", force=True)
    with pytest.raises(OwnedElsewhere, match=r"\.spec\.provisionedConcurrentExecutions by 'argocd-controller'"):
        await provision(1)
    assert await requested() == 2


def _object(name: str, spec: Object) -> Object:
    return {"apiVersion": "lambda.kappa.dev/v1alpha1", "kind": "Alias", "metadata": {"name": name}, "spec": spec}


@in_a_world
async def test_the_oldest_of_two_claims_has_the_name_and_the_other_one_follows(world: World) -> None:
    store = await world.store()
    first = await world.apply("Function", "one", manifest(functionName="f", timeout=1), manager="kubectl")
    await asyncio.sleep(1.1)  # creationTimestamp counts seconds
    second = await world.apply("Function", "two", manifest(functionName="f", timeout=2), manager="kubectl")
    async with aclosing(store.watch()) as watch:
        told = await until(watch, lambda change: change.resource.meta.uid == first["metadata"]["uid"])
        listed = await store.list("Function")
        assert [each.meta.uid for each in listed] == [first["metadata"]["uid"]]
        await world.api.delete(world.path("Function", "one"))
        gone = await anext(watch)
        assert (gone.type, gone.resource.meta.uid) == ("DELETE", told.resource.meta.uid)
        follows = await anext(watch)
        assert (follows.type, follows.resource.meta.uid) == ("PUT", second["metadata"]["uid"])
        found = await store.get(KEY)
        assert found is not None
        assert found.meta.uid == second["metadata"]["uid"]


@in_a_world
async def test_an_object_name_that_is_taken_does_not_keep_a_function_from_being_created(world: World) -> None:
    store = await world.store()
    await world.apply("Function", "f", manifest(functionName="other"), manager="kubectl")
    created = await store.create(function())
    assert await (await world.store()).get(KEY) == created
    assert {each.key.name for each in await store.list("Function")} == {"f", "other"}
    with pytest.raises(AlreadyExists):
        await (await world.store()).create(function())


@in_a_world
async def test_what_waits_for_a_finalizer_is_gone_already(world: World) -> None:
    store = await world.store()
    created = await store.create(function())
    path = world.path("Function", "f")
    await world.api.merge_patch(path, {"metadata": {"finalizers": ["example.com/wait"]}}, field_manager="somebody")
    async with aclosing(store.watch(replay=False)) as watch:
        await store.delete(KEY)
        assert (await until(watch, lambda change: change.type == "DELETE")).resource.meta.uid == created.meta.uid
        assert await store.get(KEY) is None
        assert await store.list("Function") == []
        await world.api.merge_patch(path, {"metadata": {"finalizers": None}}, field_manager="somebody")
        again = await _created_in_time(store)
        assert (await until(watch, lambda change: change.type == "PUT")).resource.meta.uid == again.meta.uid


async def _created_in_time(store: KubernetesResourceStore) -> Function:
    while True:
        try:
            return await store.create(function())
        except AlreadyExists:
            await asyncio.sleep(0.05)


@in_a_world
async def test_versions_and_aliases_go_with_their_function(world: World) -> None:
    store = await world.store()
    created = await store.create(function())
    of = created.meta.uid
    first = await store.create(msgspec.structs.replace(version(1), function_uid=of))
    await store.create(msgspec.structs.replace(alias("live"), function_uid=of))
    async with aclosing(store.watch(replay=False)) as watch:
        await store.delete(KEY)
        told = {(await until(watch, lambda change: change.type == "DELETE")).key.kind for _ in range(3)}
        assert told == {"Function", "FunctionVersion", "Alias"}
    assert await store.get(first.key) is None


# -- namespaces --------------------------------------------------------------------------------------------------------------
@in_a_world
async def test_a_namespace_is_served_as_long_as_an_account_is_assigned_to_it(world: World) -> None:
    store = await world.store()
    with pytest.raises(Rejected, match=f"{labels.ACCOUNT_ID}=222222222222"):
        await store.create(function(account="222222222222"))
    name = f"{world.namespace}-late"
    async with aclosing(store.watch(replay=False)) as watch:
        await world.make_namespace(name, account=None)
        path = api_path("lambda.kappa.dev/v1alpha1", "functions", namespace=name, name="late")
        body = {"apiVersion": "lambda.kappa.dev/v1alpha1", "kind": "Function", "metadata": {"name": "late"}, "spec": manifest()}
        await world.api.apply(path, body, field_manager="kubectl")
        namespace = api_path("v1", "namespaces", name=name)
        for account in ("222222222222", "333333333333"):
            label = {"metadata": {"labels": {labels.ACCOUNT_ID: account}}}
            await world.api.merge_patch(namespace, label, field_manager="kubectl")
            told = await until(watch, lambda change: change.type == "PUT")
            assert told.key == Key("Function", AccountId(account), REGION, "late")
            assert (await store.get(told.key)) == told.resource
        unlabelled = {"metadata": {"labels": {labels.ACCOUNT_ID: None}}}
        await world.api.merge_patch(namespace, unlabelled, field_manager="kubectl")
        gone = await until(watch, lambda change: change.type == "DELETE" and change.key.account == "333333333333")
        assert await store.get(gone.key) is None


@in_a_world
async def test_a_store_that_may_read_some_namespaces_only_asks_for_no_others(world: World) -> None:
    asked: set[str] = set()

    class Observed(Interrupted):
        async def list(self, path: str, **options: Any) -> Any:
            asked.add(path)
            return await world.api.list(path, **options)

    store = await KubernetesResourceStore.open(
        Observed(world.api, _away),  # type: ignore[arg-type]
        default_namespace=world.namespace,
        default_region=REGION,
        namespaces=[world.namespace],
    )
    store._api = store._objects._api = world.api
    everywhere = await world.store()
    await everywhere.create(function(account=OTHER_ACCOUNT))
    created = await everywhere.create(function())
    async with aclosing(store.watch()) as watch:
        assert (await until(watch, lambda change: change.resource == created)).key == KEY
        updated = await store.update(described(created, "new"))
        assert (await until(watch, lambda change: change.resource == updated)).type == "PUT"
    assert await store.list("Function") == [updated]
    assert {path for path in asked if "lambda.kappa.dev" in path and world.namespace not in path} == set()
    await store.close()


@in_a_world
async def test_what_the_schema_refuses_is_rejected_in_its_words(world: World) -> None:
    store = await world.store()
    bad = function()
    with pytest.raises(Rejected, match=r"spec\.timeout"):
        await store.create(msgspec.structs.replace(bad, configuration=msgspec.structs.replace(bad.configuration, timeout=5_000)))
    assert await store.list("Function") == []


# -- crashes and lost connections --------------------------------------------------------------------------------------------
class Interrupted:
    """The API, on which something happens right before the next write of a status."""

    def __init__(self, api: KubernetesApi, happens: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._api = api
        self._happens: Callable[[], Coroutine[Any, Any, None]] | None = happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    async def apply(self, path: str, body: Object, /, **options: Any) -> Object:
        if path.endswith("/status") and self._happens is not None:
            happens, self._happens = self._happens, None
            await happens()
        return await self._api.apply(path, body, **options)


async def _away() -> None:
    raise Unavailable("the cable is cut")


@in_a_world
async def test_a_crash_between_spec_and_status_leaves_a_function_that_can_be_settled(world: World) -> None:
    store, witness = await world.store(), await world.store()
    store._objects._api = Interrupted(world.api, _away)  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        await store.create(function())
    found = await witness.get(KEY)
    assert isinstance(found, Function)
    assert (found.configuration, found.status.state) == (function().configuration, "Pending")
    settled = await settle(witness, found)

    store._objects._api = Interrupted(world.api, _away)  # type: ignore[assignment]
    changed = described(msgspec.structs.replace(settled, status=states.updating(settled.status), modified_ms=2), "new")
    with pytest.raises(StoreUnavailable):
        await store.update(changed)
    found = await witness.get(KEY)
    assert isinstance(found, Function)
    assert (found.configuration.description, found.status.last_update_status) == ("new", "InProgress")
    assert found.status.serving == settled.configuration
    assert (await settle(witness, found)).status.last_update_status == "Successful"


@in_a_world
async def test_a_settler_that_is_faster_than_our_status_keeps_its_word_and_the_publication_stands(world: World) -> None:
    store, settler = await world.store(), await world.store()
    settled = await settle(store, await store.create(function()))

    async def settler_comes_first() -> None:
        await settle(settler, await settler.get(KEY))

    store._objects._api = Interrupted(world.api, settler_comes_first)  # type: ignore[assignment]
    changed = described(msgspec.structs.replace(settled, status=states.updating(settled.status)), "new")
    stored = await store.update(publish.begin(changed, version=1, description=None))
    assert stored.publication is not None
    assert (stored.publication.version, stored.publication.complete) == (1, False)
    assert (stored.status.last_update_status, stored.status.serving) == ("Successful", stored.configuration)
    assert await settler.get(KEY) == stored


@in_a_world
async def test_an_edit_between_spec_and_status_is_a_conflict_and_stays(world: World) -> None:
    store = await world.store()
    settled = await settle(store, await store.create(function()))

    async def somebody_edits() -> None:
        await world.api.merge_patch(world.path("Function", "f"), {"spec": {"timeout": 99}}, field_manager="kubectl-edit")

    store._objects._api = Interrupted(world.api, somebody_edits)  # type: ignore[assignment]
    with pytest.raises(Conflict):
        await store.update(described(msgspec.structs.replace(settled, status=states.updating(settled.status)), "new"))
    found = await store.get(KEY)
    assert isinstance(found, Function)
    assert (found.configuration.timeout, found.status.last_update_status) == (99, "InProgress")


@in_a_world
async def test_a_watch_goes_on_after_its_version_has_expired_and_misses_no_deletion(world: World) -> None:
    store, other = await world.store(), await world.store()
    for name in ("kept", "gone", "again"):
        await other.create(function(name))
    informer = store._informers["Function", ""]
    while len(informer.items) < 3:
        await asyncio.sleep(0.02)
    task = store._tasks[list(store._informers).index(("Function", ""))]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with aclosing(store.watch(replay=False)) as watch:
        await other.delete(function("gone").key)
        await other.delete(function("again").key)
        again = await other.create(function("again"))
        informer.position = "1"  # compacted long ago
        store._tasks.append(asyncio.create_task(informer.run()))
        told = [await anext(watch) for _ in range(3)]
    assert {(change.type, change.key.name) for change in told} == {("DELETE", "gone"), ("DELETE", "again"), ("PUT", "again")}
    assert told[-1].resource == again
    assert int(informer.position) > 1


@in_a_world
async def test_a_store_says_so_when_the_api_is_away(world: World) -> None:
    store = await world.store()
    away = await KubernetesApi.connect()
    away._host = "https://127.0.0.1:1"
    with pytest.raises(StoreUnavailable, match="could not be listed within"):
        await KubernetesResourceStore.open(away, default_namespace=world.namespace, default_region=REGION, sync_seconds=0.3)
    store._api = store._objects._api = store._counters._api = away
    for attempt in (
        store.get(KEY),
        store.create(function()),
        store.list("Function"),
        store.allocate("versions/000000000000/eu-central-1/f"),
    ):
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await attempt
    await away.close()


@in_a_world
async def test_every_name_that_lambda_takes_has_an_object_in_every_region(world: World) -> None:
    store = await world.store()
    for name in ("UPPER_case", "x" * 64, "a--b", "0"):
        for region in (REGION, "us-east-1"):
            created = await store.create(function(name, region=region))
            assert await store.get(created.key) == created
    assert len(await store.list("Function")) == 8
    for name in ("Live_1", "live-1", "x" * 128):
        created_alias = await store.create(alias(name))
        assert await store.get(created_alias.key) == created_alias
    assert len(await store.list("Alias")) == 3


@in_a_world
async def test_a_missing_right_is_no_fault_of_the_caller(world: World) -> None:
    store = await world.store()

    class Unprivileged(Interrupted):
        async def get(self, path: str, **options: Any) -> Object:
            raise Forbidden('functions is forbidden: User "x" cannot get resource "functions"', status=403)

    store._objects._api = Unprivileged(world.api, _away)  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable, match="cannot get resource"):
        await store.get(KEY)
