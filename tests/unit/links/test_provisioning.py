"""From configurations to what the scaler keeps, and back to states in the store: whatever comes first, twice, or fails in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

import made
from kappa_core.errors import InvalidRuntimeException
from kappa_core.memory.store import MemoryResourceStore
from kappa_core.ports.store import StoreUnavailable
from kappa_core.resources import Alias, Function, FunctionVersion, Key, ProvisionedConcurrency, ProvisionedState
from kappa_core.rules.provisioned import Progress, Provisionable
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.version import Version
from kappa_gateway.links.provisioned_use import ProvisionedUse
from kappa_gateway.links.provisioning import Provisioning
from made_specs import version_spec


class World:
    """A store with a function, and a scaler that does what the test says."""

    def __init__(self) -> None:
        self.memory = MemoryResourceStore(clock_ms=lambda: 1)
        self.progress: dict[str, Progress] = {}
        self.acting = True
        self.told: list[dict[str, int]] = []
        self.error: Exception | None = None
        self.unreadable = 0
        self.provisioned_use = ProvisionedUse()
        self.provisioning = Provisioning(
            store=self,
            scaling=self,
            port=self,
            make_spec=self.make_spec,
            clock_ms=lambda: 7,
            sleep=lambda seconds: asyncio.sleep(0),
        )
        self.function: Function

    async def begin(self) -> None:
        self.function = await self.memory.create(made.function())
        await self.memory.create(replace(made.version(1), function_uid=self.function.meta.uid))

    # -- the store, which may be out of reach
    async def get(self, key: Key, /) -> Any:
        if self.unreadable:
            self.unreadable -= 1
            raise StoreUnavailable("away")
        return await self.memory.get(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    # -- the scaler and the links
    def set_provisioned(self, function_key: str, targets: dict[str, tuple[int, float]], /) -> None:
        self.told.append({revision: number for revision, (number, _) in targets.items()})

    def provisioned(self, revision: str, /) -> Progress | None:
        return self.progress.get(revision, Progress(revision=revision)) if self.acting else None

    def learn(self, spec: VersionSpec, function_key: str, reserved: int | None) -> None:
        assert function_key.endswith(self.function.meta.uid)

    async def make_spec(self, version: Version) -> VersionSpec:
        if self.error is not None:
            raise self.error
        return version_spec(revision=version.revision)

    # -- what a test does
    async def alias(self, number: int, *, to: str = "1") -> Alias:
        wanted = made.alias(to=to, provisioned=ProvisionedConcurrency(requested=number), function_uid=self.function.meta.uid)
        current = await self.memory.get(wanted.key)
        if isinstance(current, Alias):
            changed = replace(
                current, function_version=to, provisioned=replace(wanted.provisioned, state=current.provisioned.state)
            )
            return await self.see(await self.memory.update(changed))
        return await self.see(await self.memory.create(wanted))

    async def see(self, resource: Any) -> Any:
        self.provisioning.seen(resource, False)
        await self.quiet()
        return resource

    async def quiet(self) -> None:
        while tasks := list(self.provisioning._workers.values()):
            await asyncio.gather(*tasks)

    async def state(self) -> ProvisionedState | None:
        found = await self.memory.get(made.alias().key)
        assert isinstance(found, Alias)
        assert found.provisioned is not None
        return found.provisioned.state


def run(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def begin() -> None:
        world = World()
        await world.begin()
        await scenario(world)

    asyncio.run(begin())


def revision(world: World) -> str:
    return f"{world.function.meta.uid}.1.{made.configuration().digest()}"


def test_the_scaler_is_told_and_its_progress_is_noted() -> None:
    async def scenario(world: World) -> None:
        await world.alias(2)
        assert world.told == [{revision(world): 2}]
        noted = await world.state()
        assert noted is not None
        assert (noted.requested, noted.ready, noted.status, noted.since_ms) == (2, 0, "IN_PROGRESS", 7)
        world.progress[revision(world)] = Progress(ready=2, allocated=2, revision=revision(world))
        world.provisioning.changed(revision(world))
        await world.quiet()
        noted = await world.state()
        assert noted is not None
        assert (noted.ready, noted.status, noted.revision, noted.since_ms) == (2, "READY", revision(world), 7)

    run(scenario)


def test_spillover_counts_only_while_something_is_provisioned() -> None:
    async def scenario(world: World) -> None:
        alias = await world.alias(1)
        use = world.provisioned_use
        for environment in ("provisioned-1", "2", "2"):
            use.count(revision(world), environment)
        use.count("another", "3")
        world.provisioning.seen(alias, True)
        await world.quiet()
        use.count(revision(world), "2")
        (one,) = use.uses.values()
        assert (one.invocations, one.spillover, one.version) == (1, 2, "$LATEST")

    run(scenario)


def test_what_is_no_longer_wanted_is_told_as_well() -> None:
    async def scenario(world: World) -> None:
        alias = await world.alias(2)
        world.provisioning.seen(alias, True)
        await world.quiet()
        assert world.told[-1] == {}
        await world.alias(1)
        await world.see(replace(alias, provisioned=None))
        assert world.told[-1] == {}

    run(scenario)


def test_a_version_that_is_not_there_yet_is_waited_for() -> None:
    async def scenario(world: World) -> None:
        await world.alias(1, to="2")
        assert world.told == [{}]
        noted = await world.state()
        assert noted is not None
        assert (noted.status, noted.reason) == ("IN_PROGRESS", "there is no published version 2")
        version = await world.memory.create(replace(made.version(2), function_uid=world.function.meta.uid))
        await world.see(version)
        assert [sum(told.values()) for told in world.told] == [0, 1]

    run(scenario)


def test_what_cannot_be_run_here_is_said() -> None:
    async def scenario(world: World) -> None:
        world.error = InvalidRuntimeException("there is no python3.99")
        await world.alias(1)
        noted = await world.state()
        assert noted is not None
        assert (noted.status, noted.reason) == ("IN_PROGRESS", "there is no python3.99")

    run(scenario)


def test_nothing_is_noted_by_who_does_not_hold_the_scaler_but_its_own_scaler_is_told() -> None:
    async def scenario(world: World) -> None:
        world.acting = False
        alias = await world.alias(1)
        assert world.told == [{revision(world): 1}]
        assert await world.state() is None
        assert world.provisioning.state(alias.key) is None

    run(scenario)


def test_after_a_start_the_holder_does_not_repeat_what_the_store_says_from_before() -> None:
    async def scenario(world: World) -> None:
        fresh = Provisioning(store=world, scaling=world, port=world, make_spec=world.make_spec, clock_ms=lambda: 7)
        assert fresh.state(made.alias().key) == ProvisionedState(requested=0, function_version="")

    run(scenario)


def test_an_alias_that_has_moved_is_not_ready_with_what_it_had_before() -> None:
    async def scenario(world: World) -> None:
        await world.memory.create(replace(made.version(2), function_uid=world.function.meta.uid))
        world.progress[revision(world)] = Progress(ready=1, allocated=1, revision=revision(world))
        await world.alias(1)
        current = await world.memory.get(made.alias().key)
        assert isinstance(current, Alias)
        moved = await world.memory.update(replace(current, function_version="2"))
        world.provisioning.seen(moved, False)
        state = world.provisioning.state(moved.key)
        assert state is not None
        assert (state.function_version, state.ready, state.status) == ("2", 0, "IN_PROGRESS")
        await world.quiet()

    run(scenario)


def test_a_store_that_is_away_is_tried_again() -> None:
    async def scenario(world: World) -> None:
        world.unreadable = 3
        await world.alias(1)
        assert world.told[-1] == {revision(world): 1}

    run(scenario)


def test_versions_have_theirs_too_and_come_before_aliases() -> None:
    async def scenario(world: World) -> None:
        version = await world.memory.get(made.version(1).key)
        assert isinstance(version, FunctionVersion)
        world.progress[revision(world)] = Progress(ready=1, allocated=1, revision=revision(world))
        await world.alias(1)
        stored: Provisionable = await world.memory.update(replace(version, provisioned=ProvisionedConcurrency(requested=1)))
        await world.see(stored)
        assert world.told[-1] == {revision(world): 2}
        state = world.provisioning.state(stored.key)
        assert state is not None
        assert state.status == "READY"
        noted = await world.state()
        assert noted is not None
        assert noted.status == "IN_PROGRESS"

    run(scenario)
