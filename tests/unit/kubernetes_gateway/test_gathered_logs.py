"""GatheredLogs over several MemoryLogStores that stand for gateways, and the signature by which gateways ask each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from itertools import islice

import pytest

from kappa_core.memory import MemoryLogStore
from kappa_core.ports.logs import LogEvent, LogGroup, LogQuery
from kappa_crds.api import ApiError
from kappa_gateway.kubernetes.gathered_logs import GatheredLogs, PeerError, follow
from kappa_gateway.kubernetes.peer_logs import GOOD_SECONDS, HttpPeers, PeerSigner
from store_samples import ACCOUNT, REGION

GROUP = LogGroup(ACCOUNT, REGION, "/aws/lambda/f")
OTHER = LogGroup(ACCOUNT, REGION, "/aws/lambda/g")


class Gateways:
    """A clock, one store for each gateway, and those of them that do not answer: the Peers of the first one, ``a``."""

    def __init__(self, *names: str) -> None:
        self.now = 1_000
        self.stores: dict[str, MemoryLogStore] = {}
        self.silent: set[str] = set()
        self.asked: list[str] = []
        for name in ("a", *names):
            self.start(name)
        self.slept = asyncio.Event()
        self.logs = GatheredLogs(self.stores["a"], self, clock_ms=lambda: self.now, sleep=self._sleep)

    def start(self, name: str) -> None:
        self.stores[name] = MemoryLogStore(clock_ms=lambda: self.now, origin=len(self.stores))

    def log(self, name: str, *messages: str, group: LogGroup = GROUP, at: int = 0) -> None:
        self.stores[name].append(group, [LogEvent(at or self.now, each, "s", "r") for each in messages])

    async def _sleep(self, seconds: float) -> None:
        self.slept.set()
        await asyncio.sleep(0)

    # -- Peers ---------------------------------------------------------------------------------------------------------
    async def addresses(self) -> set[str]:
        return self.stores.keys() - {"a"}

    async def read(self, address: str, wanted: LogQuery, /) -> list[LogEvent]:
        self.asked.append(address)
        self._check(address)
        return await self.stores[address].read(wanted)

    async def follow(self, address: str, wanted: LogQuery, /) -> AsyncGenerator[LogEvent, None]:
        self._check(address)
        async with aclosing(follow(self.stores[address], wanted)) as events:
            async for event in events:
                self._check(address)
                yield event

    def _check(self, address: str) -> None:
        if address in self.silent:
            raise PeerError("it does not answer")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


def messages(events: list[LogEvent]) -> list[str]:
    return [event.message for event in events]


async def taken(events: AsyncGenerator[LogEvent, None], count: int) -> list[str]:
    found: list[str] = []
    async for event in events:
        found.append(event.message)
        if len(found) == count:
            break
    return found


def test_lines_of_all_gateways_are_read_in_the_order_in_which_they_arrived() -> None:
    async def scenario() -> None:
        gateways = Gateways("b", "c")
        for number, name in enumerate(("b", "a", "c", "a", "b")):
            gateways.now += 1
            gateways.log(name, f"{number}")
        gateways.log("c", "of another function", group=OTHER)
        assert messages(await gateways.logs.read(LogQuery(GROUP))) == ["0", "1", "2", "3", "4"]

    run(scenario)


def test_pages_over_gateways_leave_nothing_out_and_repeat_nothing() -> None:
    async def scenario() -> None:
        gateways = Gateways("b", "c")
        sent = [f"{number}" for number in range(40)]
        for number, message in enumerate(sent):
            gateways.now += number % 2
            gateways.log("abc"[number % 3], message)
        found: list[LogEvent] = []
        while page := await gateways.logs.read(LogQuery(GROUP, limit=7, after_event_id=found[-1].event_id if found else None)):
            assert len(page) <= 7
            found += page
        assert sorted(messages(found), key=int) == sent
        assert [event.event_id for event in found] == sorted({event.event_id for event in found})
        assert await gateways.logs.read(LogQuery(GROUP, limit=5, newest=True)) == found[-5:]

    run(scenario)


def test_a_gateway_that_does_not_answer_costs_its_own_lines_and_is_named() -> None:
    async def scenario() -> None:
        gateways = Gateways("b", "c")
        for name in "abc":
            gateways.log(name, name)
        gateways.silent = {"b"}
        assert sorted(messages(await gateways.logs.read(LogQuery(GROUP)))) == ["a", "c"]
        assert gateways.logs.missing == {"b"}
        gateways.silent = set()
        assert sorted(messages(await gateways.logs.read(LogQuery(GROUP)))) == ["a", "b", "c"]
        assert gateways.logs.missing == frozenset()

    run(scenario)


def test_a_follower_gets_what_is_stored_in_order_and_then_what_arrives_anywhere() -> None:
    async def scenario() -> None:
        gateways = Gateways("b")
        for number in range(6):
            gateways.now += 1
            gateways.log("ba"[number % 2], f"stored {number}")
        async with aclosing(gateways.logs.follow(GROUP, start_ms=0)) as events:
            assert await taken(events, 6) == [f"stored {number}" for number in range(6)]
            for name in ("b", "a", "b"):
                gateways.now += 1
                gateways.log(name, f"new at {name}")
            assert sorted(await taken(events, 3)) == ["new at a", "new at b", "new at b"]

    run(scenario)


def test_a_follower_without_a_beginning_gets_only_what_arrives_later() -> None:
    async def scenario() -> None:
        gateways = Gateways("b")
        gateways.log("a", "old")
        gateways.log("b", "old")
        gateways.now += 1
        async with aclosing(gateways.logs.follow(GROUP)) as events:
            first = asyncio.create_task(taken(events, 2))
            await asyncio.sleep(0)
            gateways.log("b", "new", at=1)
            gateways.log("a", "new", at=1)
            assert await first == ["new", "new"]

    run(scenario)


def test_a_follower_hears_of_a_gateway_that_starts_meanwhile() -> None:
    async def scenario() -> None:
        gateways = Gateways()
        async with aclosing(gateways.logs.follow(GROUP, start_ms=0)) as events:
            first = asyncio.create_task(taken(events, 1))
            await gateways.slept.wait()
            gateways.start("b")
            gateways.log("b", "hello")
            assert await first == ["hello"]

    run(scenario)


def test_a_follower_misses_nothing_of_a_gateway_that_was_out_of_reach_for_a_while() -> None:
    async def scenario() -> None:
        gateways = Gateways("b")
        gateways.log("b", "before")
        async with aclosing(gateways.logs.follow(GROUP, start_ms=0)) as events:
            assert await taken(events, 1) == ["before"]
            gateways.silent = {"b"}
            gateways.log("b", "while it was away")
            gateways.log("a", "meanwhile")
            assert await taken(events, 1) == ["meanwhile"]
            gateways.silent = set()
            gateways.log("b", "after")
            assert await taken(events, 2) == ["while it was away", "after"]

    run(scenario)


def test_followers_end_when_this_gateway_leaves_and_its_lines_can_still_be_read() -> None:
    async def scenario() -> None:
        gateways = Gateways("b")
        gateways.log("a", "last")
        async with aclosing(gateways.logs.follow(GROUP, start_ms=0)) as events:
            everything = asyncio.create_task(taken(events, 100))
            await gateways.slept.wait()
            gateways.stores["a"].dismiss()
            assert await everything == ["last"]
        gateways.log("a", "later")
        assert messages(await gateways.logs.read(LogQuery(GROUP))) == ["last", "later"]

    run(scenario)


def test_a_follower_who_does_not_read_keeps_no_more_than_the_store_would() -> None:
    async def scenario() -> None:
        store = MemoryLogStore(clock_ms=lambda: 0, events_per_group=3)
        events = store.follow(GROUP)
        store.append(GROUP, [LogEvent(0, f"{number}", "s") for number in range(10)])
        assert await taken(events, 3) == ["7", "8", "9"]
        await events.aclose()

    run(scenario)


WANTED = LogQuery(GROUP, stream="2026/11/21/[$LATEST]ab&c=", request_id="é ü", start_ms=0, after_event_id="7", newest=True)


def test_what_one_gateway_signs_another_understands() -> None:
    signed = PeerSigner(b"k" * 32, now=lambda: 1000.0).signed(WANTED, follow=True)
    assert PeerSigner(b"k" * 32, now=lambda: 1000.0 + GOOD_SECONDS).checked(signed) == (WANTED, True)


@pytest.mark.parametrize(
    ("secret", "later", "change"),
    [
        (b"x" * 32, 0, ("", "")),
        (b"k" * 32, GOOD_SECONDS + 1, ("", "")),
        (b"k" * 32, 0, ("lambda%2Ff", "lambda%2Fg")),
        (b"k" * 32, 0, ("&follow=0", "&follow=1")),
        (b"k" * 32, 0, ("&signature=", "&sig=")),
    ],
    ids=["another key", "too late", "another function", "followed", "no signature"],
)
def test_what_no_gateway_has_signed_is_not_answered(secret: bytes, later: int, change: tuple[str, str]) -> None:
    signed = PeerSigner(b"k" * 32, now=lambda: 1000.0).signed(WANTED, follow=False)
    assert PeerSigner(secret, now=lambda: 1000.0 + later).checked(signed.replace(*change)) is None


def test_the_gateways_that_were_there_last_are_asked_while_nobody_can_say_which_there_are() -> None:
    answers = iter([{"10.0.0.2:9000"}, ApiError("down"), TimeoutError()])

    async def locate() -> set[str]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def scenario() -> None:
        peers = HttpPeers(locate, PeerSigner(b"k" * 32), believed_seconds=0)
        assert [await peers.addresses() for _ in islice(range(3), 3)] == [{"10.0.0.2:9000"}] * 3

    run(scenario)
