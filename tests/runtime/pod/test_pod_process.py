"""The first process of a pod against gateways with TLS, as a real process without a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from kappa_core.errors import EnvironmentLostException
from kappa_core.link.frames import Retire
from kappa_core.spec import VersionSpec
from pod_gateway import (
    POD,
    TOKEN,
    ArchiveServer,
    Certificates,
    KnownTokens,
    Pod,
    PodGateway,
    free_port,
    pod_gateway,
    python_spec,
)

ECHO = "import os\ndef handler(event, context):\n    return {'event': event, 'process': os.getpid()}\n"
SLOW = "import time, pathlib\ndef handler(event, context):\n    pathlib.Path(event).touch()\n    time.sleep(0.8)\n    return 'done'\n"

NOBODY = "tcp:127.0.0.1:9"
"""Holds the scaler, as far as a second gateway knows."""


class World(NamedTuple):
    """A gateway, where archives are, and what a pod needs to know of both."""

    folder: Path
    certificates: Certificates
    tokens: KnownTokens
    archives: ArchiveServer
    port: int

    @property
    def address(self) -> str:
        return f"tls:127.0.0.1:{self.port}"

    def gateway(self) -> AbstractAsyncContextManager[PodGateway]:
        return pod_gateway(self.certificates, self.tokens, port=self.port)

    def pod(self, *gateways: str, token: str = TOKEN, uid: str = POD.uid) -> Pod:
        return Pod(self.folder / "pod", self.certificates, gateways=gateways or [self.address], token=token, uid=uid)

    def spec(self, source: str = ECHO) -> VersionSpec:
        return python_spec(code=self.archives.offer({"app.py": source}))


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    with ArchiveServer().serving() as archives:
        yield World(folder, Certificates(folder / "pki"), KnownTokens({TOKEN: POD}), archives, free_port())


def run(folder: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    async def run_it() -> None:
        async with world(folder) as one:
            await scenario(one)

    asyncio.run(run_it())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_spare_fetches_code_and_layers_answers_and_ends_silently_on_sigterm(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with world.gateway() as gateway, world.pod() as pod:
            source = "import here\ndef handler(event, context):\n    return [event, here.name, here.__file__]\n"
            first = world.archives.offer({"python/here.py": "name = 'first'"})
            second = world.archives.offer({"python/here.py": "name = 'second'"})
            spec = python_spec(code=world.archives.offer({"app.py": source}), layers=(first, second))
            event, name, file = await gateway.json(spec, {"a": 1})
            assert (event, name) == ({"a": 1}, "second")
            assert file.startswith(str(pod.folder / "opt"))
            assert (pod.folder / "task" / "app.py").stat().st_mode & 0o222 == 0
            assert list((pod.folder / "work" / "archives").iterdir()) == []
            pod.terminate()
            assert await pod.ended() == 0
            assert pod.output == ""

    run(tmp_path, scenario)


def test_gateways_are_found_by_name(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with world.gateway() as gateway, world.pod(f"dns:localhost:{world.port}"):
            assert (await gateway.json(world.spec(), 1))["event"] == 1

    run(tmp_path, scenario)


def test_a_gateway_that_starts_later_or_anew_finds_the_same_environment(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with world.pod() as pod:
            spec = world.spec()
            async with world.gateway() as gateway:
                before = await gateway.json(spec)
            async with world.gateway() as gateway:
                after = await gateway.json(spec)
            assert after["process"] == before["process"]
            assert pod.lives

    run(tmp_path, scenario)


def test_a_gateway_that_never_saw_the_revision_takes_it_from_the_pod_by_its_seal(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = world.spec()
        async with world.pod():
            async with world.gateway() as gateway:
                await gateway.json(spec)
            async with world.gateway() as gateway:
                await gateway.until(lambda: gateway.links.port.spec_of(spec.revision) == spec)

    run(tmp_path, scenario)


def test_all_gateways_away_for_long_costs_nothing_but_their_answers(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        begun = world.folder / "begun"
        spec = world.spec(SLOW)
        async with world.pod() as pod:
            async with world.gateway() as gateway:
                running = asyncio.create_task(gateway.invoke(spec, f'"{begun}"'.encode()))
                await until(begun.exists)
            with pytest.raises(EnvironmentLostException):
                await running
            # Longer than what runs, than a link may resume, and than a supervisor on a laptop waits with this setting.
            await asyncio.sleep(4)
            assert pod.lives
            begun.unlink()
            async with world.gateway() as gateway:
                assert await gateway.json(spec, str(begun)) == "done"

    run(tmp_path, scenario)


def test_two_gateways_dispatch_to_one_pod(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = world.spec()
        async with (
            world.gateway() as one,
            pod_gateway(world.certificates, world.tokens, holder=NOBODY) as other,
            world.pod(world.address, other.address),
        ):
            first = await one.json(spec)
            await other.until(lambda: other.links.port.stats().supervisors == 1)
            assert (await other.json(spec))["process"] == first["process"]
            assert (await one.json(spec))["process"] == first["process"]

    run(tmp_path, scenario)


def test_sigterm_lets_what_runs_finish(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        begun = world.folder / "begun"
        async with world.gateway() as gateway, world.pod() as pod:
            running = asyncio.create_task(gateway.json(world.spec(SLOW), str(begun)))
            await until(begun.exists)
            pod.terminate()
            assert await running == "done"
            assert await pod.ended() == 0

    run(tmp_path, scenario)


def test_sigterm_before_anything_was_assigned_ends_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with world.gateway() as gateway, world.pod() as pod:
            await gateway.until(lambda: bool(gateway.provider.up))
            pod.terminate()
            assert await pod.ended() == 0

    run(tmp_path, scenario)


def test_a_retired_environment_is_followed_by_another_one_in_the_same_pod(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = world.spec()
        async with world.gateway() as gateway, world.pod() as pod:
            first = await gateway.json(spec)
            (supervisor,) = gateway.provider.up
            port = gateway.links.port
            (environment,) = port._of_environment
            port.retire_environment(environment, Retire(reason="a test"))
            await gateway.until(lambda: port.stats().environments["idle"] == 0)
            assert pod.lives
            port.start(supervisor, ["another"])
            second = await gateway.json(spec)
            assert second["process"] != first["process"]

    run(tmp_path, scenario)


def test_a_pod_whose_supervisor_was_retired_waits_for_sigterm(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with world.gateway() as gateway, world.pod() as pod:
            await gateway.json(world.spec())
            (supervisor,) = gateway.provider.up
            gateway.links.port.retire_supervisor(supervisor, "a test")
            await gateway.until(lambda: not gateway.links.port._of_environment)
            await asyncio.sleep(0.3)
            assert pod.lives
            pod.terminate()
            assert await pod.ended() == 0

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("token", "uid", "why"),
    [
        pytest.param("guessed", POD.uid, "token is wrong", id="a token of nobody"),
        pytest.param(TOKEN, "another", "another UID", id="another pod's token"),
    ],
)
def test_a_pod_without_a_token_of_its_own_gets_nothing(
    tmp_path: Path, token: str, uid: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        async with world.gateway() as gateway, world.pod(token=token, uid=uid):
            await until(lambda: len(world.tokens.asked) >= 3)
            assert gateway.provider.up == []

    run(tmp_path, scenario)
    assert why in caplog.text


def test_a_token_that_was_replaced_counts_from_the_next_dial_on(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = world.spec()
        async with world.pod() as pod:
            async with world.gateway() as gateway:
                before = await gateway.json(spec)
            world.tokens.pods = {"the next one": POD}
            async with world.gateway() as gateway:
                await until(lambda: world.tokens.asked.count(TOKEN) >= 2)
                assert gateway.provider.up == []
                pod.token.write_text("the next one\n")
                assert await gateway.json(spec) == before

    run(tmp_path, scenario)


def test_a_gateway_with_a_certificate_of_somebody_else_is_told_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        stranger = Certificates(world.folder / "stranger")
        async with pod_gateway(stranger, world.tokens) as gateway, world.pod(gateway.address) as pod:
            await until(lambda: "is not trusted" in pod.said())
            await asyncio.sleep(0.3)
            assert pod.said().count("\n") == 1
            assert world.tokens.asked == []

    run(tmp_path, scenario)


def test_the_authority_may_be_replaced_while_the_pod_lives(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        stranger = Certificates(world.folder / "stranger")
        async with pod_gateway(stranger, world.tokens) as gateway, world.pod(gateway.address) as pod:
            await until(lambda: "is not trusted" in pod.said())
            pod.authority.write_bytes(stranger.authority.read_bytes())
            assert (await gateway.json(world.spec(), 1))["event"] == 1

    run(tmp_path, scenario)


def test_code_that_is_something_else_ends_the_container_with_an_error(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = world.spec()
        assert spec.code is not None
        path = next(iter(world.archives.answers))
        data = world.archives.answers[path][1]
        world.archives.answers[path] = (200, data[:-1] + b"x")
        async with world.gateway() as gateway, world.pod() as pod:
            running = asyncio.create_task(gateway.json(spec))
            assert await pod.ended() == 1
            assert "its size or its digest is wrong" in pod.output
            assert list((pod.folder / "task").iterdir()) == []
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(tmp_path, scenario)


def test_code_is_asked_for_again_while_its_server_is_busy(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = world.spec()
        path, (_, data) = next(iter(world.archives.answers.items()))
        answers = iter([(503, b""), (429, b""), (200, data[:10]), (200, data)])
        world.archives.answers[path] = (0, lambda: next(answers))
        async with world.gateway() as gateway, world.pod():
            assert (await gateway.json(spec, 1))["event"] == 1
            assert len(world.archives.asked) == 4

    run(tmp_path, scenario)


def test_sigterm_while_code_is_not_to_be_had_ends_the_pod(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = world.spec()
        path = next(iter(world.archives.answers))
        world.archives.answers[path] = (503, b"")
        async with world.gateway() as gateway, world.pod() as pod:
            running = asyncio.create_task(gateway.json(spec))
            await until(lambda: bool(world.archives.asked))
            pod.terminate()
            assert await pod.ended() == 0
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(tmp_path, scenario)


def test_a_container_that_is_started_anew_in_its_pod_begins_with_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        spec = world.spec()
        async with world.gateway() as gateway:
            async with world.pod() as pod:
                await gateway.json(spec)
                (pod.folder / "task" / "left").write_text("by the function")
                os.kill(pod.pid, 9)
                await pod.ended()
            async with world.pod() as pod:
                assert (await gateway.json(spec, 2))["event"] == 2
                assert sorted(entry.name for entry in (pod.folder / "task").iterdir()) in (["app.py"], ["__pycache__", "app.py"])

    run(tmp_path, scenario)


def test_orphans_of_a_function_are_reaped(tmp_path: Path) -> None:
    source = (
        "import os, subprocess, sys\n"
        "def handler(event, context):\n"
        "    done = subprocess.run([sys.executable, '-c', 'import os\\nif os.fork() == 0:\\n    os._exit(0)\\n'])\n"
        "    return done.returncode\n"
    )

    async def scenario(world: World) -> None:
        async with world.gateway() as gateway, world.pod() as pod:
            assert await gateway.json(world.spec(source)) == 0
            await until(lambda: zombies(pod.pid) == [])

    run(tmp_path, scenario)


def zombies(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, above = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state == "Z" and int(above) == parent:
                found.append(int(entry.name))
    return found


def test_a_manifest_without_what_a_pod_must_know_is_refused_in_one_line(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        pod = world.pod()
        del pod.variables["KAPPA_POD_UID"]
        async with pod:
            assert await pod.ended() == 2
        assert pod.output.count("\n") == 1
        assert "KAPPA_POD_UID" in pod.output

    run(tmp_path, scenario)


def test_it_refuses_to_take_a_machine_for_its_container(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        pod = world.pod()
        del pod.variables["KAPPA_TASK_DIR"]
        async with pod:
            assert await pod.ended() == 2
        assert "container of its own" in pod.output

    run(tmp_path, scenario)
