"""The link's listener in a cluster: TLS, and somebody who vouches for tokens. Raw connections, an in-memory voucher."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kappa_core.link.frames import (
    PROTOCOL_VERSION,
    Assigned,
    Frame,
    FrameReader,
    FrameType,
    Hello,
    Parked,
    PeerHello,
    encode,
)
from kappa_gateway.links import server as server_module
from kappa_gateway.links.sealing import SpecSeal
from kappa_gateway.links.server import LinkServer, ListenError
from pod_gateway import LINK_NAME, POD, REVISION, TOKEN, Certificates, KnownTokens


class Owner:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.lost_for = ""

    def frame(self, frame: Frame, /) -> None:
        self.frames.append(frame)

    def lost(self, reason: str, /) -> None:
        self.lost_for = reason


class Peer:
    """A connection of a supervisor or a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._cutter = FrameReader()

    async def hears(self, kind: FrameType) -> bool:
        """Whether such a frame comes before the end."""
        async with asyncio.timeout(10):
            while data := await self.reader.read(65536):
                if any(frame.type is kind for frame in self._cutter.feed(data)):
                    return True
        return False


class Listening:
    def __init__(self, folder: Path) -> None:
        self.certificates = Certificates(folder)
        self.tokens = KnownTokens({TOKEN: POD}, gateways=["a gateway's"])
        self.owners: list[Owner] = []
        self.server = LinkServer(
            gateway_id="g",
            on_supervisor=lambda *_: self._own(),
            on_peer=lambda *_: self._own(),
            ssl=self.certificates.context(),
            vouch=self.tokens,
        )
        self.address = ""

    def _own(self) -> Owner:
        self.owners.append(Owner())
        return self.owners[-1]

    @asynccontextmanager
    async def peer(self, *said: bytes) -> AsyncIterator[Peer]:
        context = ssl.create_default_context(cafile=str(self.certificates.authority))
        port = int(self.address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=LINK_NAME)
        writer.write(b"".join(said))
        try:
            yield Peer(reader, writer)
        finally:
            writer.transport.abort()


def run(folder: Path, scenario: Callable[[Listening], Awaitable[None]]) -> None:
    async def run_it() -> None:
        listening = Listening(folder)
        listening.address = await listening.server.listen("tls:127.0.0.1:0")
        try:
            await scenario(listening)
        finally:
            await listening.server.close()

    asyncio.run(run_it())


def hello(**changes: Any) -> bytes:
    given: dict[str, Any] = {
        "supervisor_id": f"{POD.uid}.1",
        "oldest": PROTOCOL_VERSION,
        "newest": PROTOCOL_VERSION,
        "revision": "",
        "pid": 1,
        "environments": [],
        "token": TOKEN,
    }
    return encode(FrameType.HELLO, Hello(**(given | changes)))


def peer_hello(token: str) -> bytes:
    return encode(FrameType.PEER_HELLO, PeerHello(gateway_id="h", oldest=1, newest=PROTOCOL_VERSION, token=token))


@pytest.mark.parametrize(
    "said", [hello(), hello(revision=REVISION), peer_hello("a gateway's")], ids=["a spare", "its own revision", "a gateway"]
)
def test_who_is_vouched_for_is_welcomed(tmp_path: Path, said: bytes) -> None:
    async def scenario(listening: Listening) -> None:
        async with listening.peer(said) as peer:
            assert await peer.hears(FrameType.WELCOME)
        assert len(listening.owners) == 1

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param(hello(token="guessed"), "its token is wrong", id="a token of nobody"),
        pytest.param(hello(token=""), "its token is wrong", id="no token"),
        pytest.param(hello(supervisor_id="another.1"), "another UID", id="another pod's token"),
        pytest.param(hello(supervisor_id=f"{POD.uid}1.1"), "another UID", id="a UID that begins alike"),
        pytest.param(hello(revision="uid-g.$LATEST.1"), "not the revision of the pod", id="another function's revision"),
        pytest.param(hello(token="a gateway's"), "its token is wrong", id="a pod with a gateway's token"),
        pytest.param(peer_hello(TOKEN), "its token is wrong", id="a gateway with a pod's token"),
    ],
)
def test_who_is_not_is_closed_without_a_word_and_nothing_he_says_is_heard(
    tmp_path: Path, said: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(listening: Listening) -> None:
        async with listening.peer(said, encode(FrameType.PARKED, Parked(), stream=1, epoch=1)) as peer:
            assert not await peer.hears(FrameType.WELCOME)
        assert listening.owners == []

    run(tmp_path, scenario)
    (record,) = caplog.records
    assert why in record.getMessage()


def test_a_spare_that_says_it_was_assigned_another_functions_revision_is_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(listening: Listening) -> None:
        stolen = Assigned(revision="uid-g.$LATEST.1", spec=b"")
        async with listening.peer(hello(), encode(FrameType.ASSIGNED, stolen)) as peer:
            await peer.hears(FrameType.GONE)
        (owner,) = listening.owners
        assert owner.frames == []

    run(tmp_path, scenario)
    assert "not the revision of the pod" in caplog.text


def test_one_that_was_assigned_its_own_is_heard(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        own = Assigned(revision=REVISION, spec=b"")
        async with listening.peer(hello(), encode(FrameType.ASSIGNED, own)) as peer:
            assert await peer.hears(FrameType.WELCOME)
            async with asyncio.timeout(5):
                while not listening.owners[0].frames:
                    await asyncio.sleep(0.005)
        assert listening.owners[0].frames[0].body == own

    run(tmp_path, scenario)


def test_a_question_that_waits_holds_up_nobody_else(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        tokens = listening.tokens
        at_once, waiting = tokens.answers, asyncio.Event()
        tokens.answers = waiting
        async with listening.peer(hello()) as slow:
            async with asyncio.timeout(5):
                while not tokens.asked:
                    await asyncio.sleep(0.005)
            tokens.answers = at_once
            async with listening.peer(hello(supervisor_id=f"{POD.uid}.2")) as quick:
                assert await quick.hears(FrameType.WELCOME)
            assert len(listening.owners) == 1
            waiting.set()
            assert await slow.hears(FrameType.WELCOME)

    run(tmp_path, scenario)


def test_frames_that_came_with_the_greeting_reach_the_owner_in_order(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        tokens = listening.tokens
        tokens.answers.clear()
        parked = [encode(FrameType.PARKED, Parked(idle_ms=number), stream=1, epoch=1) for number in range(50)]
        async with listening.peer(hello(), *parked[:20]) as peer:
            async with asyncio.timeout(5):
                while not tokens.asked:
                    await asyncio.sleep(0.005)
            peer.writer.write(b"".join(parked[20:]))
            tokens.answers.set()
            assert await peer.hears(FrameType.WELCOME)
            (owner,) = listening.owners
            async with asyncio.timeout(5):
                while len(owner.frames) < 50:
                    await asyncio.sleep(0.005)
        assert [frame.body.idle_ms for frame in owner.frames] == list(range(50))

    run(tmp_path, scenario)


@pytest.mark.parametrize("way", ["away", "silent"])
def test_without_an_answer_nobody_is_let_in(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(listening: Listening) -> None:
        if way == "away":
            listening.tokens.away = True
        else:
            listening.tokens.answers.clear()
        async with listening.peer(hello()) as peer:
            assert not await peer.hears(FrameType.WELCOME)
        assert listening.owners == []

    monkeypatch.setattr(server_module, "VOUCH_SECONDS", 0.1)
    run(tmp_path, scenario)
    assert "whether its token is good" in caplog.text


def test_a_peer_that_leaves_while_its_question_waits_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        listening.tokens.answers.clear()
        async with listening.peer(hello()):
            async with asyncio.timeout(5):
                while not listening.tokens.asked:
                    await asyncio.sleep(0.005)
        # Nobody reads while the question waits, so the end of the connection is seen with the answer.
        listening.tokens.answers.set()
        async with asyncio.timeout(5):
            while not listening.owners or not listening.owners[0].lost_for:
                await asyncio.sleep(0.005)

    run(tmp_path, scenario)


def test_a_listener_closes_while_questions_wait(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        listening.tokens.answers.clear()
        async with listening.peer(hello()):
            async with asyncio.timeout(5):
                while not listening.tokens.asked:
                    await asyncio.sleep(0.005)
            await listening.server.close()
        assert listening.owners == []

    run(tmp_path, scenario)


def test_plain_text_is_not_answered(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listening.address.rpartition(":")[2]))
        writer.write(hello())
        async with asyncio.timeout(5):
            said = await reader.read()
        writer.close()
        assert b"g" not in said[:1]
        assert listening.owners == []

    run(tmp_path, scenario)


def test_an_address_with_tls_needs_a_certificate() -> None:
    async def scenario() -> None:
        server = LinkServer(gateway_id="g", on_supervisor=lambda *_: None, on_peer=lambda *_: None)
        with pytest.raises(ListenError, match="needs a certificate"):
            await server.listen("tls:127.0.0.1:0")

    asyncio.run(scenario())


def test_a_seal_fits_its_own_spec_and_key_only() -> None:
    seal = SpecSeal(b"key")
    assert seal.fits(b"spec", seal.of(b"spec"))
    assert not seal.fits(b"spec'", seal.of(b"spec"))
    assert not seal.fits(b"spec", SpecSeal(b"another").of(b"spec"))
    assert not seal.fits(b"spec", b"")
