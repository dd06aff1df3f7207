"""The tables of PostgreSQL's EventQueue as functions of a connection. The statements are in ``postgres_queue.sql``, the tables in
``postgres_migrations/0002_queue.sql``.

Almost each is one statement and thereby one transaction. No policy here: what is gathered into one batch, and what is tried again, is
decided in :mod:`kappa_gateway.stores.postgres_queue`. ``now`` is the caller's time, or None for the database's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Final, NamedTuple

from kappa_core.ports.queue import (
    DEDUPE_MS,
    EVENT_OVERHEAD,
    Dead,
    Event,
    FunctionStats,
    Lease,
    LeaseLost,
    Waiting,
    unqualified,
)

_LONG_SECONDS: Final = 60.0
"""For what only people ask, and may have to look at every row."""


def _statements() -> dict[str, str]:
    """By their names."""
    text = resources.files("kappa_gateway.stores").joinpath("postgres_queue.sql").read_text()
    parts = re.split(r"^-- :name (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


_SQL: Final = _statements()


# -- in ------------------------------------------------------------------------------------------------------------
class Arrival(NamedTuple):
    """One enqueue."""

    event: Event
    delay_ms: int
    dedupe: str

    @property
    def size(self) -> int:
        return len(self.event.payload) + EVENT_OVERHEAD


async def enqueue(connection: Any, arrivals: Sequence[Arrival], *, now: int | None) -> list[str]:
    """Store them; the id of each, or of the event that had its dedupe key before."""
    keyed = {(one.event.function_uid, one.dedupe): one.event.event_id for one in reversed(arrivals) if one.dedupe}
    if not keyed:
        await _insert(connection, arrivals, now=now)
        return [one.event.event_id for one in arrivals]
    async with connection.transaction():
        uids, keys = zip(*keyed, strict=True)
        await connection.execute(_SQL["claim_keys"], now, uids, keys, list(keyed.values()), DEDUPE_MS)
        holders = {(row[0], row[1]): row[2] for row in await connection.fetch(_SQL["holders_of_keys"], uids, keys)}
        ids = [holders.get((one.event.function_uid, one.dedupe), one.event.event_id) for one in arrivals]
        await _insert(connection, [one for one, held in zip(arrivals, ids, strict=True) if held == one.event.event_id], now=now)
    return ids


async def _insert(connection: Any, arrivals: Sequence[Arrival], *, now: int | None) -> None:
    if not arrivals:
        return
    tallies: dict[str, tuple[str, int, int]] = {}
    for one in arrivals:
        arn, depth, size = tallies.get(one.event.function_uid) or (unqualified(one.event.function_arn), 0, 0)
        tallies[one.event.function_uid] = (arn, depth + 1, size + one.size)
    events = [one.event for one in arrivals]
    await connection.execute(
        _SQL["enqueue"],
        now,
        [event.event_id for event in events],
        [event.function_uid for event in events],
        [event.function_arn for event in events],
        [storable(event.trace_id) for event in events],
        [one.size for one in arrivals],
        [one.delay_ms for one in arrivals],
        [event.payload for event in events],
        list(tallies),
        *(list(column) for column in zip(*tallies.values(), strict=True)),
    )


# -- leases --------------------------------------------------------------------------------------------------------


class Round(NamedTuple):
    """What one lease found."""

    leases: list[Lease]
    now: int
    """The queue's time."""
    next_due_ms: int | None
    """When the next event becomes due, where none is."""
    contended: bool
    """Something was due, but others were faster."""


async def lease(
    connection: Any,
    limit: int,
    *,
    now: int | None,
    lease_ms: int,
    share: int,
    rooms: Mapping[str, int],
    turn: str,
    holder: int | None,
) -> Round:
    """See the port. ``turn`` is the function that the last lease ended with; ``holder`` the number of a gateway that is present."""
    rows = await connection.fetch(_SQL["lease"], now, turn, share, list(rooms), list(rooms.values()), limit, lease_ms, holder)
    summary = next(row for row in rows if row["id"] is None)
    taken = sorted((row for row in rows if row["id"] is not None), key=lambda row: (row["place"], row["due_ms"], row["id"]))
    rounds: dict[int, int] = {}
    in_turn = []
    for row in taken:
        rounds[row["place"]] = rounds.get(row["place"], 0) + 1
        in_turn.append((rounds[row["place"]], row["place"], row))
    in_turn.sort(key=lambda one: one[:2])
    leases = [
        Lease(
            event=_event(row),
            number=row["id"],
            epoch=row["epoch"],
            enqueued_ms=row["enqueued_ms"],
            leases=row["leases"],
            note=row["note"],
        )
        for _, _, row in in_turn
    ]
    return Round(leases, summary["now"], summary["due_ms"], contended=summary["place"] > 0 and not leases)


# -- holders of leases ---------------------------------------------------------------------------------------------
async def be_present(connection: Any, number: int | None, *, session: str) -> tuple[int, bool]:
    """Take a number, or with ``number`` that one again, and its lock on this connection; the number, and whether the lock was free."""
    if number is None:
        row = await connection.fetchrow(_SQL["new_holder"], session)
    else:
        row = await connection.fetchrow(_SQL["same_holder"], session, number)
    return row["id"], row["locked"]


async def free_holders(connection: Any) -> list[int]:
    """Numbers whose lock nobody has."""
    return [row["id"] for row in await connection.fetch(_SQL["free_holders"])]


async def end_leases(connection: Any, number: int, *, now: int | None, lease_ms: int) -> list[str]:
    """Forget a holder and end its leases; the uid of the function of each. Nothing where its lock is taken."""
    rows = await connection.fetch(_SQL["end_leases"], now, number, lease_ms, timeout=_LONG_SECONDS)
    return [row["function_uid"] for row in rows]


async def leave(connection: Any, number: int) -> None:
    """Forget a holder that has no leases any more."""
    await connection.execute(_SQL["leave"], number)


class Word(NamedTuple):
    """What a holder says of its lease that does not end the event."""

    lease: Lease
    due_in_ms: int
    note: bytes | None
    keep: bool
    """Whether the lease goes on."""


async def say(connection: Any, words: Sequence[Word], *, now: int | None) -> list[Exception | None]:
    """``extend`` and ``nack`` of the port, of one lease each; None or LeaseLost for each."""
    rows = await connection.fetch(
        _SQL["say"],
        now,
        *_leases(word.lease for word in words),
        [word.due_in_ms for word in words],
        [word.note for word in words],
        [word.keep for word in words],
    )
    return _answers(rows, [word.lease for word in words])


async def ack(connection: Any, leases: Sequence[Lease], *, now: int | None) -> list[Exception | None]:
    """See the port; None or LeaseLost for each."""
    return _answers(await connection.fetch(_SQL["ack"], now, *_leases(leases)), leases)


class Death(NamedTuple):
    lease: Lease
    reason: str
    detail: str


async def kill(connection: Any, deaths: Sequence[Death], *, now: int | None) -> list[Exception | None]:
    """See the port; None or LeaseLost for each."""
    rows = await connection.fetch(
        _SQL["kill"],
        now,
        *_leases(death.lease for death in deaths),
        [storable(death.reason) for death in deaths],
        [storable(death.detail) for death in deaths],
    )
    return _answers(rows, [death.lease for death in deaths])


def _leases(leases: Iterable[Lease]) -> tuple[list[int], list[int]]:
    pairs = [(lease.number, lease.epoch) for lease in leases]
    return [number for number, _ in pairs], [epoch for _, epoch in pairs]


def _answers(rows: Sequence[Any], leases: Sequence[Lease]) -> list[Exception | None]:
    held = {row["place"] for row in rows}
    return [
        None if place in held else LeaseLost(f"event {lease.event.event_id} is no longer leased with epoch {lease.epoch}")
        for place, lease in enumerate(leases, 1)
    ]


async def find(connection: Any, event_id: str) -> Waiting | Dead | None:
    """See the port. A dead letter is looked up, what waits is searched for: only people ask."""
    row = await connection.fetchrow(_SQL["find_dead"], event_id)
    if row is not None:
        return _dead(row)
    row = await connection.fetchrow(_SQL["find_waiting"], event_id, timeout=_LONG_SECONDS)
    if row is None:
        return None
    return Waiting(event=_event(row), enqueued_ms=row["enqueued_ms"], due_ms=row["due_ms"], leases=row["leases"])


async def dead_letters(connection: Any, function_uid: str, *, after: str, limit: int) -> list[Dead]:
    """See the port."""
    last = await connection.fetchrow(_SQL["find_dead"], after)
    behind = (-1, -1) if last is None else (last["killed_ms"], last["id"])
    rows = await connection.fetch(_SQL["dead_letters"], function_uid, *behind, limit)
    return [_dead(row) for row in rows]


async def redrive(connection: Any, function_uid: str, *, event_id: str, now: int | None, limit: int) -> int:
    """Up to ``limit`` of the dead letters that the port's ``redrive`` means."""
    return int(await connection.fetchval(_SQL["redrive"], now, function_uid, event_id, limit, timeout=_LONG_SECONDS))


async def purge(connection: Any, function_uid: str, *, dead: bool, event_id: str, now: int | None, limit: int) -> int:
    """Up to ``limit`` of the events that the port's ``purge`` means."""
    statement = _SQL["purge_dead" if dead else "purge_waiting"]
    return int(await connection.fetchval(statement, now, function_uid, event_id, limit, timeout=_LONG_SECONDS))


async def expire(connection: Any, before_ms: int, *, now: int | None, limit: int) -> int:
    """Up to ``limit`` of the dead letters that the port's ``expire`` means; with the last of them what else it drops."""
    expired = int(await connection.fetchval(_SQL["expire"], before_ms, limit, timeout=_LONG_SECONDS))
    if expired < limit:
        await add_up(connection)
        await connection.execute(_SQL["forget_functions"], before_ms)
        await connection.execute(_SQL["forget_keys"], now)
    return expired


async def add_up(connection: Any) -> None:
    """Bring the tallies into the books; whoever comes while another is at it leaves it to that."""
    await connection.execute(_SQL["add_up"])


async def held_bytes(connection: Any) -> dict[str, int]:
    """Bytes that wait, of each function with any."""
    rows = await connection.fetch(_SQL["held_bytes"])
    return {row["uid"]: row["bytes"] for row in rows}


async def stats(connection: Any) -> list[FunctionStats]:
    """See the port."""
    return [
        FunctionStats(
            function_uid=row["uid"],
            function_arn=row["arn"],
            depth=row["depth"],
            depth_bytes=row["bytes"],
            oldest_ms=row["oldest_ms"],
            dead=row["dead"],
            done=row["done"],
            killed=row["killed"],
        )
        for row in await connection.fetch(_SQL["stats"])
    ]


def _event(row: Any) -> Event:
    return Event(
        event_id=row["event_id"],
        function_uid=row["function_uid"],
        function_arn=row["arn"],
        trace_id=row["trace_id"],
        payload=row["payload"],
    )


def _dead(row: Any) -> Dead:
    return Dead(
        event=_event(row),
        enqueued_ms=row["enqueued_ms"],
        killed_ms=row["killed_ms"],
        reason=row["reason"],
        detail=row["detail"],
    )


def storable(text: str) -> str:
    """Text as PostgreSQL takes it, which has no NUL and no half of a surrogate pair. Functions' error messages may have both."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
