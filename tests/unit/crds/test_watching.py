"""The Informer: what it knows and tells, whatever becomes of its watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kappa_crds.api import Forbidden, Object, Unavailable
from kappa_crds.watching import INACTIVITY_SECONDS, ChangeType, Informer
from virtual_time import virtual
from watched_twin import WatchedTwin

PATH = "/apis/lambda.kappa.dev/v1alpha1/functions"


class Told:
    def __init__(self) -> None:
        self.changes: list[tuple[str, str, str]] = []

    def __call__(self, type_: ChangeType, obj: Object) -> None:
        self.changes.append((type_, obj["metadata"]["name"], obj["metadata"]["uid"]))

    def take(self) -> list[tuple[str, str, str]]:
        taken, self.changes = self.changes, []
        return taken


@asynccontextmanager
async def informed(api: WatchedTwin, told: Told) -> AsyncIterator[Informer]:
    informer = Informer(api, PATH, on_change=told, uniform=lambda: 1.0)
    task = asyncio.create_task(informer.run())
    try:
        await informer.synced.wait()
        yield informer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle() -> None:
    await asyncio.sleep(0.01)


@virtual
async def test_it_tells_what_is_there_and_then_every_change_in_order() -> None:
    api, told = WatchedTwin(), Told()
    api.put("a")
    async with informed(api, told) as informer:
        assert told.take() == [("ADDED", "a", "uid-1")]
        api.put("b", spec=1)
        api.put("b", spec=2)
        api.remove("a")
        await settle()
        assert told.take() == [("ADDED", "b", "uid-2"), ("MODIFIED", "b", "uid-2"), ("DELETED", "a", "uid-1")]
        assert list(informer.items) == [("n", "b")]
        assert informer.items["n", "b"]["spec"] == 2
        assert informer.items["n", "b"]["metadata"]["managedFields"] == [{"manager": "test"}]


@virtual
async def test_a_lost_connection_is_resumed_behind_the_last_event_and_nothing_is_told_twice() -> None:
    api, told = WatchedTwin(), Told()
    async with informed(api, told):
        api.put("a")
        await settle()
        api.cut()
        api.put("b")
        await settle()
        assert told.take() == [("ADDED", "a", "uid-1"), ("ADDED", "b", "uid-2")]
        assert api.lists == [PATH]
        assert api.watches == ["0", "1"]


@virtual
async def test_a_watch_that_the_server_ends_goes_on_at_the_position_of_the_last_bookmark() -> None:
    api, told = WatchedTwin(), Told()
    async with informed(api, told) as informer:
        api.bookmark()
        await settle()
        api.end()
        await settle()
        assert (api.watches, informer.position, told.take()) == (["0", "1"], "1", [])


@virtual
async def test_after_compaction_the_difference_is_told_deletions_and_recreations_included() -> None:
    api, told = WatchedTwin(), Told()
    for name in ("kept", "changed", "gone", "again"):
        api.put(name)
    async with informed(api, told) as informer:
        told.take()
        api.freeze()
        api.put("changed", spec=2)
        api.remove("gone")
        api.remove("again")
        api.put("again")
        api.put("new")
        api.compact()
        api.freeze(frozen=False)
        await asyncio.sleep(1)
        assert sorted(told.take()) == [
            ("ADDED", "again", "uid-5"),
            ("ADDED", "new", "uid-6"),
            ("DELETED", "again", "uid-4"),
            ("DELETED", "gone", "uid-3"),
            ("MODIFIED", "changed", "uid-2"),
        ]
        assert {name for _, name in informer.items} == {"kept", "changed", "again", "new"}
        assert len(api.lists) == 2


@virtual
async def test_a_frozen_watch_is_given_up_and_what_was_missed_is_told() -> None:
    api, told = WatchedTwin(), Told()
    async with informed(api, told) as informer:
        api.freeze()
        api.put("a")
        await asyncio.sleep(INACTIVITY_SECONDS - 1)
        assert informer.silent_seconds >= INACTIVITY_SECONDS - 1
        assert told.take() == []
        api._frozen = False  # silently, as a broken proxy comes back: the watch that is open stays silent
        await asyncio.sleep(2)
        assert told.take() == [("ADDED", "a", "uid-1")]
        assert informer.silent_seconds < 2


@virtual
async def test_bookmarks_alone_keep_it_from_looking_dead() -> None:
    api, told = WatchedTwin(), Told()
    async with informed(api, told) as informer:
        for _ in range(10):
            await asyncio.sleep(60)
            api.bookmark()
        await settle()
        assert informer.silent_seconds < 1
        assert api.watches == ["0"]


@virtual
async def test_attempts_grow_rare_while_the_api_is_away_and_frequent_again_afterwards() -> None:
    api, told = WatchedTwin(), Told()
    loop = asyncio.get_running_loop()
    async with informed(api, told):
        api.fail_next = [Unavailable("away")] * 10
        began = loop.time()
        api.cut()
        while api.fail_next:
            await asyncio.sleep(0.1)
        # 0.5 + 1 + 2 + 4 + 8 + 16, then every 30 s
        assert 31.5 + 3 * 30 <= loop.time() - began <= 31.5 + 4 * 30
        api.put("a")
        await asyncio.sleep(31)
        assert told.take() == [("ADDED", "a", "uid-1")]
        began = loop.time()
        api.cut()
        api.put("b")
        await settle()
        assert told.take() == [("ADDED", "b", "uid-2")]


@virtual
async def test_it_is_not_synced_before_the_first_list_and_needs_no_help_to_get_there() -> None:
    api, told = WatchedTwin(), Told()
    api.put("a")
    api.fail_next = [Forbidden("not yet"), Unavailable("away")]
    async with informed(api, told) as informer:
        assert len(api.lists) == 3
        assert told.take() == [("ADDED", "a", "uid-1")]
        assert informer.last_heard > 0


@virtual
async def test_a_name_that_changes_hands_between_two_events_is_told_as_deleted_and_added() -> None:
    api, told = WatchedTwin(), Told()
    api.put("a")
    async with informed(api, told):
        told.take()
        api.remove("a")
        api._history.clear()  # an event that never comes, as after a restore of etcd
        api.put("a")
        await settle()
        assert told.take() == [("DELETED", "a", "uid-1"), ("ADDED", "a", "uid-2")]
