"""The condition Scalable: told of changes alone, by whoever holds the scaler, until what is written is what is known."""

from __future__ import annotations

import asyncio
from typing import Any

from kappa_crds.api import Unavailable
from kappa_gateway.kubernetes.scalable import ScalableConditions

REVISION = "uid-1.$LATEST.abc"


class Api:
    """One Function object."""

    def __init__(self) -> None:
        self.conditions: list[dict[str, Any]] = []
        self.writes: list[tuple[str, str]] = []
        self.reads = 0
        self.away = False
        self.uid = "uid-1"

    async def get(self, path: str, /) -> dict[str, Any]:
        self.reads += 1
        if self.away:
            raise Unavailable("away")
        return {"metadata": {"uid": self.uid, "generation": 3}, "status": {"conditions": self.conditions}}

    async def apply(self, path: str, body: dict[str, Any], /, *, field_manager: str, force: bool) -> dict[str, Any]:
        assert path.endswith("/namespaces/team/functions/hello/status")
        self.conditions = body["status"]["conditions"]
        self.writes += [(one["status"], one["message"]) for one in self.conditions]
        return body


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def conditions(api: Api) -> ScalableConditions:
    return ScalableConditions(api, place=lambda uid: ("team", "hello"), clock_ms=lambda: 1_700_000_000_000)


def test_a_cause_is_written_once_and_taken_back_when_it_is_over() -> None:
    async def scenario() -> None:
        api = Api()
        scalable = conditions(api)
        for _ in range(3):
            scalable.cause(REVISION, "no node has room")
            await settled()
        scalable.cause(REVISION, "")
        await settled()
        scalable.cause(REVISION, "")
        await settled()
        assert api.writes == [("False", "no node has room"), ("True", "")]

    asyncio.run(scenario())


def test_causes_of_several_revisions_stand_side_by_side() -> None:
    async def scenario() -> None:
        api = Api()
        scalable = conditions(api)
        scalable.cause(REVISION, "b")
        scalable.cause("uid-1.3.abc", "a")
        await settled()
        scalable.cause(REVISION, "")
        await settled()
        assert [api.writes[0], api.writes[-1]] == [("False", "a; b"), ("False", "a")]

    asyncio.run(scenario())


def test_a_function_without_trouble_is_looked_at_once_and_never_written() -> None:
    async def scenario() -> None:
        api = Api()
        scalable = conditions(api)
        for _ in range(3):
            scalable.cause(REVISION, "")
            await settled()
        assert (api.reads, api.writes) == (1, [])

    asyncio.run(scenario())


def test_a_new_holder_takes_back_what_the_one_before_it_wrote() -> None:
    async def scenario() -> None:
        api = Api()
        before = conditions(api)
        before.cause(REVISION, "no node has room")
        await settled()
        after = conditions(api)
        after.cause(REVISION, "")
        await settled()
        assert api.writes[-1] == ("True", "")

    asyncio.run(scenario())


def test_what_could_not_be_written_is_written_with_the_next_change() -> None:
    async def scenario() -> None:
        api = Api()
        scalable = conditions(api)
        api.away = True
        scalable.cause(REVISION, "a")
        await settled()
        api.away = False
        scalable.cause(REVISION, "b")
        await settled()
        assert api.writes == [("False", "b")]

    asyncio.run(scenario())


def test_another_function_of_the_name_is_left_alone() -> None:
    async def scenario() -> None:
        api = Api()
        api.uid = "uid-2"
        scalable = conditions(api)
        scalable.cause(REVISION, "a")
        await settled()
        assert api.writes == []

    asyncio.run(scenario())


def test_a_term_that_ends_forgets_what_it_knew() -> None:
    async def scenario() -> None:
        api = Api()
        scalable = conditions(api)
        scalable.cause(REVISION, "a")
        scalable.forget()
        await settled()
        await scalable.close()
        assert api.writes == []

    asyncio.run(scenario())
