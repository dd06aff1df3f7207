"""Reviews: one question for many who wait, answers believed for a bounded time, and nobody let in without an answer."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from kappa_core.errors import ServiceException
from kappa_gateway.auth.identity import Subject
from kappa_gateway.kubernetes.reviews import ACCESS_SECONDS, REFUSED_SECONDS, TOKEN_SECONDS, Attributes, NoSubject, Reviews
from review_twin import ReviewTwin

INVOKE = Attributes(
    verb="create", group="lambda.kappa.dev", resource="functions", subresource="invoke", namespace="team", name="hello"
)
ANA = Subject(username="ana")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def jwt(expires: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.signature"


def test_a_token_is_reviewed_once_and_believed_for_a_minute() -> None:
    async def scenario() -> None:
        api, clock = ReviewTwin(), Clock()
        reviews = Reviews(api, now=clock)
        api.user("t", "ana", "dev")
        assert reviews.known_subject("t") is None
        found = await reviews.subject("t")
        assert found == Subject(username="ana", groups=("dev",), uid="uid of ana")
        clock.now += TOKEN_SECONDS - 1
        assert reviews.known_subject("t") == found
        assert api.asked == ["token"]
        clock.now += 1
        assert reviews.known_subject("t") is None

    asyncio.run(scenario())


def test_a_token_is_never_believed_beyond_its_own_end() -> None:
    async def scenario() -> None:
        api, clock = ReviewTwin(), Clock()
        reviews = Reviews(api, now=clock)
        token = jwt(clock.now + 5)
        api.user(token, "ana")
        await reviews.subject(token)
        clock.now += 4.9
        assert reviews.known_subject(token) is not None
        clock.now += 0.1
        assert reviews.known_subject(token) is None

    asyncio.run(scenario())


def test_a_token_of_nobody_is_not_asked_about_again_for_a_while() -> None:
    async def scenario() -> None:
        api, clock = ReviewTwin(), Clock()
        reviews = Reviews(api, now=clock)
        assert isinstance(await reviews.subject("made up"), NoSubject)
        assert isinstance(await reviews.subject("made up"), NoSubject)
        assert api.asked == ["token"]
        clock.now += REFUSED_SECONDS
        await reviews.subject("made up")
        assert len(api.asked) == 2

    asyncio.run(scenario())


def test_a_token_that_is_for_other_audiences_is_nobodys() -> None:
    async def scenario() -> None:
        api = ReviewTwin()
        api.user("t", "ana")
        reviews = Reviews(api, audiences=("kappa",), now=Clock())
        assert isinstance(await reviews.subject("t"), NoSubject)  # as from an API server that knows no audiences
        api.audiences = ("kappa", "more")
        assert isinstance(await Reviews(api, audiences=("kappa",), now=Clock()).subject("t"), Subject)

    asyncio.run(scenario())


def test_many_who_wait_for_one_answer_cost_one_question() -> None:
    async def scenario() -> None:
        api = ReviewTwin()
        api.user("t", "ana")
        api.gate.clear()
        reviews = Reviews(api, now=Clock())
        waiting = [asyncio.create_task(reviews.subject("t")) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        api.gate.set()
        found = await asyncio.gather(*waiting[1:])
        assert {each.username for each in found if isinstance(each, Subject)} == {"ana"}
        assert api.asked == ["token"]

    asyncio.run(scenario())


def test_rights_are_believed_for_ten_seconds_granted_or_not() -> None:
    async def scenario() -> None:
        api, clock = ReviewTwin(), Clock()
        reviews = Reviews(api, now=clock)
        assert reviews.known_access(ANA, INVOKE) is None
        assert await reviews.access(ANA, INVOKE) is False
        api.allowed.add(("ana", "create", "functions/invoke", "hello"))
        assert reviews.known_access(ANA, INVOKE) is False
        clock.now += ACCESS_SECONDS
        assert await reviews.access(ANA, INVOKE) is True
        assert reviews.known_access(ANA, INVOKE) is True
        assert len(api.asked) == 2

    asyncio.run(scenario())


def test_nobody_is_let_in_while_the_api_server_is_away_and_it_is_asked_again() -> None:
    async def scenario() -> None:
        api = ReviewTwin()
        api.user("t", "ana")
        api.away = True
        reviews = Reviews(api, now=Clock())
        with pytest.raises(ServiceException, match="cannot be reached"):
            await reviews.subject("t")
        with pytest.raises(ServiceException, match="cannot be reached"):
            await reviews.access(ANA, INVOKE)
        api.away = False
        assert isinstance(await reviews.subject("t"), Subject)

    asyncio.run(scenario())


def test_what_is_remembered_is_bounded() -> None:
    async def scenario() -> None:
        api = ReviewTwin()
        reviews = Reviews(api, now=Clock(), remembered=3)
        for number in range(5):
            await reviews.subject(f"token {number}")
        assert reviews.known_subject("token 1") is None
        assert reviews.known_subject("token 4") is not None

    asyncio.run(scenario())


def test_closing_gives_up_what_is_being_asked() -> None:
    async def scenario() -> None:
        api = ReviewTwin()
        api.gate.clear()
        reviews = Reviews(api, now=Clock())
        waiting = asyncio.create_task(reviews.subject("t"))
        await asyncio.sleep(0)
        await reviews.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())
