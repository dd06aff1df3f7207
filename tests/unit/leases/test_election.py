"""One holder at a time, whatever happens to the holder, the others and the API server. In virtual time."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from kappa_crds.api import AlreadyExists, Conflict, NotFound, Object, Unavailable
from kappa_crds.leases import Election, Standing
from virtual_time import virtual

SECONDS = 15.0


class OneLease:
    """An API server that holds a single Lease and can be out of reach, for all or for some."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.version = 0
        self.away = False
        self.latency = 0.01
        self.hanging = 0
        """So many of the next requests are never answered."""
        self.asked: list[str] = []

    async def get(self, path: str, /) -> Object:
        await self._reach("get")
        if self.lease is None:
            raise NotFound(path)
        return copy.deepcopy(self.lease)

    async def create(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        await self._reach("create")
        if self.lease is not None:
            raise AlreadyExists(path)
        return self._store(body)

    async def replace(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        await self._reach("replace")
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict(path)
        return self._store(body)

    async def _reach(self, verb: str) -> None:
        self.asked.append(verb)
        self.hanging -= 1
        await asyncio.sleep(3600 if self.hanging >= 0 else self.latency)
        if self.away:
            raise Unavailable("away")

    def _store(self, body: Object) -> Object:
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


class CutOff:
    """One candidate's way to the API server; ``cut`` lets nothing through and answers nothing."""

    def __init__(self, api: OneLease) -> None:
        self.api = api
        self.cut = False

    async def _pass(self) -> None:
        if self.cut:
            await asyncio.sleep(3600)

    async def get(self, path: str, /) -> Object:
        await self._pass()
        return await self.api.get(path)

    async def create(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        await self._pass()
        return await self.api.create(path, body, field_manager=field_manager)

    async def replace(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        await self._pass()
        return await self.api.replace(path, body, field_manager=field_manager)


def candidate(api: Any, identity: str, heard: list[Standing] | None = None) -> Election:
    heard = [] if heard is None else heard
    return Election(
        api,
        namespace="system",
        name="kappa-test",
        identity=identity,
        field_manager="test",
        lease_seconds=SECONDS,
        changed=heard.append,
    )


async def killed(task: asyncio.Task[None], election: Election) -> None:
    """kill -9: the process ends without letting go."""
    election.standing = Standing()
    task.cancel()
    await asyncio.wait([task])


@virtual
async def test_the_first_candidate_makes_the_lease_and_the_others_learn_who_holds_it() -> None:
    api = OneLease()
    first, second = candidate(api, "a"), candidate(api, "b")
    tasks = [asyncio.create_task(each.run()) for each in (first, second)]
    await asyncio.sleep(5)
    assert first.standing == Standing("a", 1, mine=True)
    assert second.standing == Standing("a", 1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@virtual
async def test_a_holder_that_leaves_lets_go_and_the_next_one_has_the_next_epoch() -> None:
    api = OneLease()
    first, second = candidate(api, "a"), candidate(api, "b")
    one = asyncio.create_task(first.run())
    await asyncio.sleep(1)
    two = asyncio.create_task(second.run())
    await asyncio.sleep(5)
    one.cancel()
    await asyncio.wait([one])
    assert not first.standing.mine
    await asyncio.sleep(2.1)
    assert second.standing == Standing("b", 2, mine=True)
    two.cancel()
    await asyncio.wait([two])


@virtual
async def test_a_killed_holder_is_followed_after_the_lease_has_run_out_and_not_before() -> None:
    api = OneLease()
    first, second = candidate(api, "a"), candidate(api, "b")
    one = asyncio.create_task(first.run())
    await asyncio.sleep(1)
    two = asyncio.create_task(second.run())
    await asyncio.sleep(5)
    await killed(one, first)
    await asyncio.sleep(SECONDS - 5)
    assert not second.standing.mine
    await asyncio.sleep(10)
    assert second.standing == Standing("b", 2, mine=True)
    two.cancel()
    await asyncio.wait([two])


@virtual
async def test_a_holder_renews_with_one_request_and_notices_what_others_write() -> None:
    api = OneLease()
    first = candidate(api, "a")
    one = asyncio.create_task(first.run())
    await asyncio.sleep(1)
    api.asked.clear()
    await asyncio.sleep(6)
    assert set(api.asked) == {"replace"}
    assert api.lease is not None
    api.lease["metadata"]["annotations"] = {"somebody": "was here"}
    api._store(api.lease)
    await asyncio.sleep(6)
    assert first.standing == Standing("a", 1, mine=True)
    assert api.lease["metadata"]["annotations"] == {"somebody": "was here"}
    one.cancel()
    await asyncio.wait([one])


@virtual
async def test_a_slow_server_does_not_cost_the_lease_nor_does_one_request_that_hangs() -> None:
    api = OneLease()
    heard: list[Standing] = []
    first, second = candidate(api, "a", heard), candidate(api, "b")
    one = asyncio.create_task(first.run())
    await asyncio.sleep(1)
    two = asyncio.create_task(second.run())
    api.latency = SECONDS / 4
    await asyncio.sleep(10 * SECONDS)
    api.latency = 0.01
    await asyncio.sleep(SECONDS)
    api.hanging = 1
    await asyncio.sleep(2 * SECONDS)
    assert heard == [Standing("a", 1, mine=True)]
    for task in (one, two):
        task.cancel()
    await asyncio.wait([one, two])


@virtual
async def test_a_restarted_process_takes_its_own_lease_at_once_with_a_new_epoch() -> None:
    api = OneLease()
    first = candidate(api, "a")
    one = asyncio.create_task(first.run())
    await asyncio.sleep(3)
    await killed(one, first)
    again = candidate(api, "a")
    two = asyncio.create_task(again.run())
    await asyncio.sleep(0.5)
    assert again.standing == Standing("a", 2, mine=True)
    two.cancel()
    await asyncio.wait([two])


@virtual
async def test_two_never_hold_it_at_once_when_the_holder_is_cut_off_and_comes_back() -> None:
    api = OneLease()
    way = CutOff(api)
    first, second = candidate(way, "a"), candidate(CutOff(api), "b")
    tasks = [asyncio.create_task(first.run())]
    await asyncio.sleep(1)
    tasks.append(asyncio.create_task(second.run()))
    await asyncio.sleep(7.3)
    way.cut = True
    for _ in range(400):
        await asyncio.sleep(0.1)
        assert not (first.standing.mine and second.standing.mine)
    assert second.standing == Standing("b", 2, mine=True)
    way.cut = False
    await asyncio.sleep(10)
    assert first.standing == Standing("b", 2)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@virtual
async def test_while_the_api_server_is_away_nobody_holds_it_and_afterwards_one_does() -> None:
    api = OneLease()
    heard: list[Standing] = []
    first, second = candidate(api, "a", heard), candidate(api, "b")
    tasks = [asyncio.create_task(first.run())]
    await asyncio.sleep(1)
    tasks.append(asyncio.create_task(second.run()))
    await asyncio.sleep(5)
    api.away = True
    await asyncio.sleep(60)
    assert not first.standing.mine
    assert not second.standing.mine
    assert [standing.mine for standing in heard] == [True, False]
    api.away = False
    await asyncio.sleep(SECONDS * 2)
    assert sum(each.standing.mine for each in (first, second)) == 1
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
