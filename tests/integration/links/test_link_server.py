"""The link's listener: who is let in, who is not, and what lies in the way of its socket."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from kappa_core.link.frames import PROTOCOL_VERSION, Frame, FrameReader, FrameType, Hello, Parked, PeerHello, Welcome, encode
from kappa_core.link.transport import Link
from kappa_gateway.links import server as server_module
from kappa_gateway.links.server import LinkServer, ListenError

HELLO = Hello(
    supervisor_id="s1",
    oldest=PROTOCOL_VERSION,
    newest=PROTOCOL_VERSION,
    revision="",
    pid=1,
    environments=[],
    token="secret",
)


class Owner:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.lost_for = ""

    def frame(self, frame: Frame, /) -> None:
        self.frames.append(frame)

    def lost(self, reason: str, /) -> None:
        self.lost_for = reason


class Listening:
    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder / 'link'}"
        self.owners: list[Owner] = []
        self.server = LinkServer(
            gateway_id="g", on_supervisor=lambda *_: self._own(), on_peer=lambda *_: self._own(), token="secret"
        )

    def _own(self) -> Owner:
        self.owners.append(Owner())
        return self.owners[-1]

    async def say(self, *data: bytes) -> list[Frame]:
        """Everything that the server answers until it closes; its own heartbeats apart."""
        reader, writer = await asyncio.open_unix_connection(self.address.removeprefix("unix:"))
        for each in data:
            writer.write(each)
        frames: list[Frame] = []
        cutter = FrameReader()
        try:
            async with asyncio.timeout(5):
                while received := await reader.read(65536):
                    frames += [frame for frame in cutter.feed(received) if frame.type is not FrameType.PING]
                    if any(frame.type is FrameType.WELCOME for frame in frames):
                        break
        finally:
            writer.close()
            await writer.wait_closed()
        return frames


def run(folder: Path, scenario: Callable[[Listening], Awaitable[None]]) -> None:
    async def run_it() -> None:
        listening = Listening(folder)
        await listening.server.listen(listening.address)
        try:
            await scenario(listening)
        finally:
            await listening.server.close()

    asyncio.run(run_it())


def test_a_supervisor_and_a_gateway_with_the_token_are_welcomed(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        peer = PeerHello(gateway_id="h", oldest=1, newest=PROTOCOL_VERSION + 1, token="secret")
        for hello in (encode(FrameType.HELLO, HELLO), encode(FrameType.PEER_HELLO, peer)):
            (welcome,) = await listening.say(hello)
            assert welcome.body == Welcome(gateway_id="g", version=PROTOCOL_VERSION)
        assert len(listening.owners) == 2

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param(encode(FrameType.HELLO, msgspec.structs.replace(HELLO, token="guess")), "token", id="wrong token"),
        pytest.param(encode(FrameType.HELLO, msgspec.structs.replace(HELLO, token="")), "token", id="no token"),
        pytest.param(
            encode(FrameType.HELLO, msgspec.structs.replace(HELLO, oldest=PROTOCOL_VERSION + 1, newest=PROTOCOL_VERSION + 2)),
            "versions",
            id="too new",
        ),
        pytest.param(encode(FrameType.HELLO, msgspec.structs.replace(HELLO, oldest=0, newest=0)), "versions", id="too old"),
        pytest.param(encode(FrameType.PARKED, Parked()), "instead of a greeting", id="no greeting"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "broke the protocol", id="a browser"),
    ],
)
def test_whoever_is_not_welcome_is_closed_with_one_log_line_and_no_word_of_his_is_heard(
    tmp_path: Path, said: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(listening: Listening) -> None:
        assert await listening.say(said, encode(FrameType.PARKED, Parked(), stream=1, epoch=1)) == []
        assert listening.owners == []

    run(tmp_path, scenario)
    (record,) = caplog.records
    assert reason in record.getMessage()


def test_a_connection_that_says_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(listening: Listening) -> None:
        assert await listening.say() == []

    monkeypatch.setattr(server_module, "GREETING_SECONDS", 0.05)
    run(tmp_path, scenario)


def test_the_owner_hears_every_frame_and_the_end(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        parked = encode(FrameType.PARKED, Parked(), stream=1, epoch=2)
        await listening.say(encode(FrameType.HELLO, HELLO), parked)
        async with asyncio.timeout(5):
            while not listening.owners[0].lost_for:
                await asyncio.sleep(0.01)
        assert [frame.type for frame in listening.owners[0].frames] == [FrameType.PARKED]

    run(tmp_path, scenario)


def test_closing_the_server_ends_connections_whose_peer_does_not_read(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        _, writer = await asyncio.open_unix_connection(listening.address.removeprefix("unix:"))
        writer.write(encode(FrameType.HELLO, HELLO))
        async with asyncio.timeout(5):
            while not listening.owners:
                await asyncio.sleep(0.01)
            await listening.server.close()
        assert listening.owners[0].lost_for
        writer.close()

    run(tmp_path, scenario)


def test_only_this_user_can_open_the_socket_and_it_is_removed_at_the_end(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        assert stat.S_IMODE((tmp_path / "link").stat().st_mode) == 0o600

    run(tmp_path, scenario)
    assert not (tmp_path / "link").exists()


def test_a_socket_left_by_a_killed_gateway_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    async def scenario(listening: Listening) -> None:
        second = Listening(tmp_path)
        await second.server.listen(second.address)
        await second.server.close()
        (tmp_path / "file").write_text("precious")
        with pytest.raises(ListenError, match="in the way"):
            await second.server.listen(f"unix:{tmp_path / 'file'}")
        assert (tmp_path / "file").read_text() == "precious"

    run(tmp_path, scenario)


@pytest.mark.parametrize("address", ["unix:/" + "x" * 120, "tcp:127.0.0.1", "tcp:127.0.0.1:http", "9001", "tcp:192.0.2.1:0"])
def test_an_address_that_cannot_be_served_is_one_clear_error(address: str) -> None:
    async def scenario() -> None:
        server = LinkServer(gateway_id="g", on_supervisor=lambda *_: None, on_peer=lambda *_: None)
        with pytest.raises(ListenError):
            await server.listen(address)
        await server.close()

    asyncio.run(scenario())


def test_a_tcp_listener_says_which_port_it_took() -> None:
    async def scenario() -> None:
        made: list[Link] = []
        server = LinkServer(gateway_id="g", on_supervisor=lambda link, _: made.append(link), on_peer=lambda *_: None)
        address = await server.listen("tcp:127.0.0.1:0")
        host, port = address.removeprefix("tcp:").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(encode(FrameType.HELLO, msgspec.structs.replace(HELLO, token="")))
        async with asyncio.timeout(5):
            while not made:
                await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        await server.close()

    asyncio.run(scenario())
