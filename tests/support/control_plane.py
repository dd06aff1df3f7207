"""A control plane in memory: the operations over the twins of the stores, with an archive reader and a runtime list that tests steer.

Operations are called as the API layer calls them, by name and with members. Nothing here unpacks or runs anything.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any

import botocore.session

from kappa_core.errors import InvalidParameterValueException
from kappa_core.limits import Limits
from kappa_core.memory import MemoryBlobStore, MemoryResourceStore
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import Alias, Code, Function, FunctionVersion, Key, Sha256
from kappa_core.rules import publish
from kappa_gateway.api.context import RequestContext
from kappa_gateway.operations.dependencies import CodeIntake, Dependencies, OperationSettings
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.preparing import Trees as UnpackedTrees
from kappa_gateway.operations.preparing import UnpackedCode
from kappa_gateway.operations.registry import build_registry
from kappa_gateway.operations.settle import Settler

ACCOUNT = "123456789012"
REGION = "eu-central-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/lambda"


def arn(name: str, qualifier: str | None = None) -> str:
    plain = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    return plain if qualifier is None else f"{plain}:{qualifier}"


def layer_arn(name: str, version: int | None = None) -> str:
    plain = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:{name}"
    return plain if version is None else f"{plain}:{version}"


class Clock:
    """Milliseconds that pass only when told to."""

    def __init__(self, now_ms: int = 1_795_000_000_123) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


class Intake:
    """Takes any bytes for an archive that unpacks to ten times its size; ``bad`` is none."""

    def __init__(self, blobs: MemoryBlobStore) -> None:
        self._blobs = blobs
        self.objects: dict[tuple[str, str, str | None], bytes] = {}

    async def from_zip(self, data: bytes, /) -> Code:
        if data == b"bad":
            raise InvalidParameterValueException(
                "Could not unzip uploaded file. Please check your file, then try to upload again."
            )
        info = await self._blobs.put(data)
        return Code(sha256=info.sha256, size=len(data), unzipped_size=10 * len(data))

    async def from_s3(self, bucket: str, key: str, version: str | None, /, *, region: str) -> Code:
        assert region == REGION
        return await self.from_zip(self.objects[bucket, key, version])


class Trees:
    """Unpacks nothing, and can be made to fail or to wait."""

    def __init__(self) -> None:
        self.unpacked: list[Sha256] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.kept: set[Sha256 | tuple[Sha256, ...]] = set()

    async def task_root(self, sha256: Sha256, /) -> Path:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.unpacked.append(sha256)
        return Path("task") / sha256

    async def opt_root(self, layers: Sequence[Sha256], /) -> Path | None:
        self.unpacked.extend(layers)
        return Path("opt") if layers else None

    async def sweep(self, keep: Iterable[Sha256 | tuple[Sha256, ...]], /) -> None:
        self.kept = set(keep)


class Runtimes:
    def __init__(self) -> None:
        self.missing: set[str] = set()

    async def look(self, runtime: str, /) -> None:
        """Everything is known from the start."""

    def available(self, runtime: str, /) -> str | None:
        return f"{runtime} is not installed; found python3.11." if runtime in self.missing else None


class Links:
    def code_url(self, context: RequestContext, key: Key, sha256: Sha256, /) -> str:
        return f"http://{context.host}/code/{key.name}/{key.sub or '-'}/{sha256}"


class ControlPlane:
    """Call operations with ``await plane("CreateFunction", FunctionName=...)``."""

    def __init__(
        self,
        *,
        strict: bool = False,
        limits: Limits | None = None,
        wrap: Callable[[ResourceStore], ResourceStore] = lambda store: store,
        on: ControlPlane | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        delay: float = 0.0,
        intake: CodeIntake | None = None,
        trees: UnpackedTrees | None = None,
    ) -> None:
        self.clock: Clock = on.clock if on else Clock()
        self.memory: MemoryResourceStore = on.memory if on else MemoryResourceStore(clock_ms=self.clock)
        self.store = wrap(self.memory)
        self.blobs: MemoryBlobStore = on.blobs if on else MemoryBlobStore(clock_ms=self.clock)
        self.intake = Intake(self.blobs)
        self.trees = Trees()
        self.runtimes = Runtimes()
        locks = KeyedLocks()
        self.settler = Settler(
            store=self.store,
            preparation=UnpackedCode(store=self.store, trees=trees or self.trees, runtimes=self.runtimes),
            locks=locks,
            delay=delay,
            sleep=sleep,
        )
        self.deps = Dependencies(
            store=self.store,
            intake=intake or self.intake,
            links=Links(),
            settle=self.settler,
            limits=limits or Limits(),
            clock=self.clock,
            locks=locks,
            settings=OperationSettings(strict_states=strict, settle_wait_seconds=5.0),
        )
        self.registry = build_registry(self.deps)

    async def __call__(self, operation: str, /, **params: Any) -> dict[str, Any]:
        return await self.call_as(ACCOUNT, operation, **params)

    async def call_as(self, account: str, operation: str, /, **params: Any) -> dict[str, Any]:
        """The answer, checked to have only members that the service model knows."""
        answer = await self.registry[operation](context(account), params)
        assert isinstance(answer, dict)
        _check_members(_model().operation_model(operation).output_shape, answer, operation)
        return answer

    async def create(self, name: str = "hello", *, settle: bool = True, **params: Any) -> dict[str, Any]:
        """CreateFunction with what is mandatory; returns what it answered."""
        given = {"Runtime": "python3.12", "Handler": "app.handler", "Role": ROLE, "Code": {"ZipFile": b"code 1"}, **params}
        answer = await self("CreateFunction", FunctionName=name, **given)
        if settle:
            await self.settler.idle()
        return answer

    async def layer(self, name: str = "tools", data: bytes = b"layer") -> str:
        """A new layer version; returns its ARN."""
        answer = await self("PublishLayerVersion", LayerName=name, Content={"ZipFile": data})
        return str(answer["LayerVersionArn"])

    async def configuration(self, name: str = "hello", **params: Any) -> dict[str, Any]:
        return await self("GetFunctionConfiguration", FunctionName=name, **params)


async def check_whole(store: ResourceStore) -> None:
    """Nothing is under way, every version and alias belongs to its function, and is Active or leads to what is."""
    functions = {one.meta.uid: one for one in await store.list("Function") if isinstance(one, Function)}
    versions = [one for one in await store.list("FunctionVersion") if isinstance(one, FunctionVersion)]
    for version in versions:
        function = functions[version.function_uid]
        assert version.status.state == "Active"
        assert function.publication is not None
        assert version.version <= function.publication.version
    for function in functions.values():
        assert (function.status.state, function.status.last_update_status) == ("Active", "Successful")
        assert function.status.serving == function.configuration
        assert publish.pending(function) is None
    numbers = {str(one.version) for one in versions}
    for alias in await store.list("Alias"):
        assert isinstance(alias, Alias)
        assert alias.function_uid in functions
        assert alias.function_version in {"$LATEST", *numbers}


@asynccontextmanager
async def settling(plane: ControlPlane) -> AsyncIterator[ControlPlane]:
    """The plane with its settler following the store, as in a running gateway."""
    running = asyncio.create_task(plane.settler.run())
    try:
        yield plane
    finally:
        await plane.settler.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@cache
def _model() -> Any:
    return botocore.session.get_session().get_service_model("lambda")


def _check_members(shape: Any, value: Any, where: str) -> None:
    if isinstance(value, dict) and (shape is None or shape.type_name == "structure"):
        known = {} if shape is None else shape.members
        assert set(value) <= set(known), f"{where}: {set(value) - set(known)} is not in the service model"
        for name, member in value.items():
            assert member is not None, f"{where}.{name} is None"
            _check_members(known[name], member, f"{where}.{name}")
    elif isinstance(value, list):
        for item in value:
            _check_members(shape.member, item, where)


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a coroutine test in an event loop of its own; nothing may hang for longer than ten seconds."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 10))

    return run


def context(account: str = ACCOUNT) -> RequestContext:
    return RequestContext(
        request_id="00000000-0000-4000-8000-000000000000",
        account=account,
        region=REGION,
        access_key_id=None,
        source_ip="127.0.0.1",
        host="127.0.0.1:9000",
        headers={},
    )


def digest(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())
