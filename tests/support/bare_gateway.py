"""A gateway without HTTP: the links, the scaler and the ProcessProvider, with events run by a method. For tests of the link.

As a script it is a gateway process of its own, driven by JSON lines: ``python bare_gateway.py '{"folder": …, "me": …}'`` answers
each ``{"id": …, "function": …, "payload": …}`` on its standard input with a line on its standard output.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kappa_core.errors import LambdaError
from kappa_core.limits import Limits
from kappa_core.link import frames
from kappa_core.link.frames import LogLine
from kappa_core.spec import VersionSpec
from kappa_gateway.embedded.provider import ProcessProvider
from kappa_gateway.links.assembly import GatewayLinks, Membership
from kappa_gateway.links.shell import OnData
from made_specs import version_spec


def python_spec(folder: Path, source: str, *, name: str = "f", revision: str = "1", **changes: Any) -> VersionSpec:
    """A Python function in a folder of its own."""
    task = folder / f"{name}-{revision}"
    task.mkdir(parents=True, exist_ok=True)
    (task / "app.py").write_text(source, encoding="utf-8")
    given: dict[str, Any] = {"revision": f"uid-{name}.$LATEST.{revision}", "task_root": str(task), "command": (sys.executable,)}
    return version_spec(name, **(given | changes))


def key_of(spec: VersionSpec) -> str:
    return f"{spec.account}/{spec.region}/{spec.function_name}/{spec.function_uid}"


class BareGateway:
    """See the module; use :meth:`open`."""

    links: GatewayLinks
    provider: ProcessProvider | None

    def __init__(self) -> None:
        self.logs: list[tuple[str, LogLine]] = []
        self.causes: list[tuple[str, str]] = []
        self._numbers = itertools.count(1)

    @classmethod
    async def open(
        cls,
        folder: Path,
        *,
        me: str = "",
        others: Sequence[str] = (),
        holder: str = "",
        limits: Limits | None = None,
        idle_seconds: float = 300.0,
        token: str = "",
        **provider_options: Any,
    ) -> BareGateway:
        membership = Membership(me=me or f"unix:{folder / 'link'}", others=tuple(others), holder=holder)
        gateway = cls()
        links = gateway.links = await GatewayLinks.open(
            membership=membership,
            limits=limits or Limits(),
            idle_seconds=idle_seconds,
            on_logs=gateway.take_logs,
            on_cause=lambda revision, cause: gateway.causes.append((revision, cause)),
            token=token,
        )
        provider = None
        if membership.holds:
            provider = ProcessProvider(
                work_dir=folder / "supervisors",
                gateways=[membership.me, *others],
                links=links.port,
                on_ended=links.scaling.supervisor_ended,
                token=token,
                **provider_options,
            )
            links.provide(provider, news=provider)
        gateway.provider = provider
        return gateway

    def take_logs(self, spec: VersionSpec, lines: Sequence[LogLine], names: Mapping[int, str]) -> None:
        self.logs += ((names[line.stream], line) for line in lines)

    async def invoke(
        self,
        spec: VersionSpec,
        payload: bytes = b"{}",
        *,
        reserved: int | None = None,
        on_data: OnData | None = None,
        **fields: Any,
    ) -> tuple[frames.Result, bytes]:
        request = frames.Invoke(
            request_id=f"{os.getpid():08x}-0000-4000-a000-{next(self._numbers):012x}", function_arn=spec.function_arn, **fields
        )
        return await self.links.port.invoke(
            spec=spec, function_key=key_of(spec), reserved=reserved, invoke=request, payload=payload, on_data=on_data
        )

    async def json(self, spec: VersionSpec, event: Any = None, *, reserved: int | None = None) -> Any:
        """The answer of a function that does not fail."""
        result, payload = await self.invoke(spec, json.dumps(event).encode(), reserved=reserved)
        assert not result.function_error, payload
        return json.loads(payload)

    async def close(self) -> None:
        await self.links.close()


async def _serve(options: dict[str, Any]) -> None:
    folder = Path(options.pop("folder"))
    limits = Limits(**options.pop("limits", {}))
    gateway = await BareGateway.open(folder, limits=limits, **options)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"ready": os.getpid()}), flush=True)
    running: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = loop.create_task(_answer(gateway, json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)
    transport.close()
    await gateway.close()


async def _answer(gateway: BareGateway, request: dict[str, Any]) -> None:
    answer: dict[str, Any] = {"id": request["id"]}
    try:
        if "ask" in request:
            stats = gateway.links.port.stats()
            answer |= {"environments": stats.environments, "in_flight": stats.in_flight, "waiting": stats.waiting}
        else:
            spec = msgspec.convert(request["spec"], VersionSpec)
            result, payload = await gateway.invoke(spec, json.dumps(request["payload"]).encode(), reserved=request["reserved"])
            answer |= {"error": result.function_error, "payload": json.loads(payload)}
    except LambdaError as error:
        answer |= {"refused": error.code, "status": error.status, **error.body()}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
