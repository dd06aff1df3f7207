"""``kill -9`` between any two writes: after a restart nothing is half done, and nothing that was acknowledged is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import ROLE, ControlPlane, asynchronous, check_whole, settling
from kappa_core.errors import LambdaError
from kappa_core.ports.store import Change, ResourceStore
from kappa_core.resources import Key


class Killed(BaseException):
    """Not an Exception: a killed process handles nothing."""


class Dying:
    """A store whose process dies right before or right after its n-th write."""

    def __init__(self, store: ResourceStore, *, at: int, after: bool) -> None:
        self._store = store
        self._at = at
        self._after = after
        self.writes = 0
        self.died = asyncio.Event()

    async def _write(self, write: Callable[[], Awaitable[Any]]) -> Any:
        self.writes += 1
        if self.writes > self._at or (self.writes == self._at and not self._after):
            self._die()
        result = await write()
        if self.writes == self._at:
            self._die()
        return result

    def _die(self) -> NoReturn:
        self.died.set()
        raise Killed

    async def create(self, resource: Any, /) -> Any:
        return await self._write(lambda: self._store.create(resource))

    async def update(self, resource: Any, /) -> Any:
        return await self._write(lambda: self._store.update(resource))

    async def delete(self, key: Key, /, *, resource_version: str | None = None) -> Any:
        return await self._write(lambda: self._store.delete(key, resource_version=resource_version))

    async def allocate(self, counter: str, /) -> int:
        number: int = await self._write(lambda: self._store.allocate(counter))
        return number

    async def get(self, key: Key, /) -> Any:
        return await self._store.get(key)

    async def list(self, *args: Any, **kwargs: Any) -> Any:
        return await self._store.list(*args, **kwargs)

    def watch(self, *, replay: bool = True) -> AsyncGenerator[Change, None]:
        return self._store.watch(replay=replay)

    async def close(self) -> None:
        await self._store.close()


Step = tuple[str, dict[str, Any]]
BASE: dict[str, Any] = {"FunctionName": "hello"}
SCENARIOS: dict[str, list[Step]] = {
    "create and publish": [],
    "update code and publish": [("UpdateFunctionCode", {**BASE, "ZipFile": b"code 2", "Publish": True})],
    "publish": [("UpdateFunctionConfiguration", {**BASE, "Timeout": 9}), ("PublishVersion", BASE)],
    "delete": [("CreateAlias", {**BASE, "Name": "live", "FunctionVersion": "1"}), ("DeleteFunction", BASE)],
}


async def run_until_killed(dying: ControlPlane, died: asyncio.Event, steps: list[Step]) -> list[dict[str, Any]]:
    """The answers that a caller got before the process died."""
    answers: list[dict[str, Any]] = []

    async def call() -> None:
        answers.append(await dying.create(Publish=True))
        for operation, params in steps:
            with contextlib.suppress(LambdaError):  # such as for a version that is not there
                answers.append(await dying(operation, **params))
            await dying.settler.idle()

    calling, dead = asyncio.create_task(call()), asyncio.create_task(died.wait())
    await asyncio.wait([calling, dead], return_when=asyncio.FIRST_COMPLETED)
    calling.cancel()
    dead.cancel()
    outcome, _ = await asyncio.gather(calling, dead, return_exceptions=True)
    assert outcome is None or isinstance(outcome, Killed | asyncio.CancelledError), outcome
    await dying.settler.stop()
    return answers


STEPS: list[Step] = [
    (
        "CreateFunction",
        {**BASE, "Runtime": "python3.12", "Handler": "a.b", "Role": ROLE, "Code": {"ZipFile": b"new"}, "Publish": True},
    ),
    ("UpdateFunctionCode", {**BASE, "ZipFile": b"code 2"}),
    ("UpdateFunctionCode", {**BASE, "ZipFile": b"code 3", "Publish": True}),
    ("UpdateFunctionConfiguration", {**BASE, "Timeout": 9}),
    ("PublishVersion", BASE),
    ("CreateAlias", {**BASE, "Name": "live", "FunctionVersion": "$LATEST"}),
    ("CreateAlias", {**BASE, "Name": "one", "FunctionVersion": "1"}),
    ("DeleteFunction", {**BASE, "Qualifier": "1"}),
    ("DeleteAlias", {**BASE, "Name": "one"}),
    ("DeleteFunction", BASE),
]


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=8), at=st.integers(1, 30), after=st.booleans())
def test_any_requests_and_any_crash_leave_a_valid_whole(steps: list[Step], at: int, after: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        stores: list[Dying] = []

        def wrap(store: ResourceStore) -> Dying:
            stores.append(Dying(store, at=at, after=after))
            return stores[0]

        died = ControlPlane(wrap=wrap)
        await run_until_killed(died, stores[0].died, steps)
        survivor = ControlPlane(on=died)
        async with settling(survivor):
            for _ in range(200):
                await asyncio.sleep(0)
            await survivor.settler.idle()
        await check_whole(survivor.memory)

    scenario()


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_restart_leaves_a_valid_whole_wherever_the_process_died(name: str, after: bool) -> None:
    @asynchronous
    async def scenario() -> None:
        at = 0
        while True:
            at += 1
            stores: list[Dying] = []

            def wrap(store: ResourceStore, at: int = at, stores: list[Dying] = stores) -> Dying:
                stores.append(Dying(store, at=at, after=after))
                return stores[0]

            died = ControlPlane(wrap=wrap)
            answers = await run_until_killed(died, stores[0].died, SCENARIOS[name])

            survivor = ControlPlane(on=died)
            async with settling(survivor):
                for _ in range(200):
                    await asyncio.sleep(0)
                await survivor.settler.idle()
            await check_whole(survivor.memory)
            await check_acknowledged(survivor, answers, deleted=name == "delete")
            if stores[0].writes < at:
                return

    scenario()


async def check_acknowledged(plane: ControlPlane, answers: list[dict[str, Any]], *, deleted: bool) -> None:
    if deleted and answers and answers[-1] == {"StatusCode": 204}:
        assert await plane.memory.list("Function") == []
        assert await plane.memory.list("FunctionVersion") == []
        assert await plane.memory.list("Alias") == []
        return
    for answer in answers:
        if "FunctionArn" in answer and answer.get("Version", "$LATEST") != "$LATEST" and not deleted:
            stored = await plane.configuration(Qualifier=answer["Version"])
            assert stored["CodeSha256"] == answer["CodeSha256"]
