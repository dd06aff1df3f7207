"""The embedded gateway put together: drivers, operations, links and the hot path, in the order in which they start and stop.

The one place that knows every part. It holds no rule of its own; what is decided here is only which driver stands behind which port.
The control plane's web framework and the service model are loaded after the gateway listens, off the event loop: an invocation does
not need them, and the first control-plane request waits for what is left of that.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib.metadata import version as distribution_version
from typing import Any, Final

from kappa_core.link.frames import LogLine
from kappa_core.names import function_arn
from kappa_core.ports.logs import LogEvent, LogGroup
from kappa_core.resources import AccountId, Region
from kappa_core.spec import VersionSpec
from kappa_gateway.asgi import Application, Gateway
from kappa_gateway.auth.browser import BrowserGuard
from kappa_gateway.auth.credential import SignedRequest
from kappa_gateway.auth.identity import Authenticator, Defaults, Unverified, Verified
from kappa_gateway.auth.session_keys import SessionKeys
from kappa_gateway.code.links import CodeLinks
from kappa_gateway.code.trees import CodeTrees
from kappa_gateway.embedded.data_dir import DataDir
from kappa_gateway.embedded.events import EmbeddedEvents
from kappa_gateway.embedded.links import EmbeddedLinks
from kappa_gateway.embedded.runtimes import Runtimes
from kappa_gateway.embedded.sdks import sdk_variables
from kappa_gateway.embedded.specs import Specs
from kappa_gateway.hot.index import FunctionIndex
from kappa_gateway.hot.invoke import InvokePath
from kappa_gateway.hot.path import Caller
from kappa_gateway.hot.quick import QuickInvoke
from kappa_gateway.hot.stream import StreamPath
from kappa_gateway.hot.version import Version
from kappa_gateway.observe.access import AccessLog
from kappa_gateway.observe.metrics import Metrics
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.preparing import UnpackedCode
from kappa_gateway.operations.settle import Settler
from kappa_gateway.operations.sweep import Sweeper
from kappa_gateway.settings import Settings
from kappa_gateway.specs import ServiceEndpoints, session_variables
from kappa_gateway.stores import ring
from kappa_gateway.stores.announced import AnnouncedStore
from kappa_gateway.stores.files import FileBlobStore
from kappa_gateway.stores.logs import SqliteLogStore
from kappa_gateway.stores.sqlite import SqliteResourceStore

_log = logging.getLogger(__name__)

SESSION_SECONDS: Final = 365 * 86400.0
"""Functions keep the keys they were started with; on one machine they are good for as long as an environment may live."""
STRICT_SETTLE_SECONDS: Final = 0.5
"""About what AWS takes to activate a small function."""
_CREDENTIAL_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class OneKey:
    """The access key of the settings, as the verifier's Credentials."""

    def __init__(self, access_key_id: str, secret: str) -> None:
        self._access_key_id = access_key_id
        self._secret = secret

    def lookup(self, access_key_id: str) -> str | None:
        return self._secret if access_key_id == self._access_key_id else None


class EmbeddedGateway:
    """See the module. Use :meth:`open`; then serve :attr:`application` and call :meth:`close` at the end."""

    application: Gateway
    quick: QuickInvoke | None

    def __init__(self, settings: Settings, data_dir: DataDir, *, endpoint: str, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._endpoint = endpoint
        self._environment = environment
        self._tasks: list[asyncio.Task[object]] = []
        self._closers: list[Callable[[], Coroutine[Any, Any, object]]] = []
        self._control_plane: asyncio.Task[Application] | None = None
        self._trouble: str | None = None
        self.metrics = Metrics()

    @classmethod
    async def open(
        cls, settings: Settings, data_dir: DataDir, /, *, endpoint: str, environment: Mapping[str, str]
    ) -> EmbeddedGateway:
        """Start every part. ``endpoint`` is the URL that functions reach the gateway at; ``environment`` the process's own.

        Raises StoreUnavailable, BlobError and ListenError with one line each.
        """
        gateway = cls(settings, data_dir, endpoint=endpoint, environment=environment)
        try:
            await gateway._start()
        except BaseException:
            await gateway.close()
            raise
        return gateway

    async def _start(self) -> None:
        settings, data_dir = self._settings, self._data_dir
        self.store = AnnouncedStore(await SqliteResourceStore.open(data_dir.resources))
        self._closers.append(self.store.close)
        self.blobs = await FileBlobStore.open(data_dir.blobs)
        self._closers.append(self.blobs.close)
        self.logs = await SqliteLogStore.open(data_dir.logs, bounds=ring.Bounds(total_bytes=settings.log_bytes))
        self._closers.append(self.logs.close)
        self.metrics.count_dropped_log_lines(lambda: self.logs.dropped)

        self.events = await EmbeddedEvents.open(settings, data_dir=data_dir)
        self._closers.append(self.events.close)

        self._session_keys = SessionKeys(data_dir.secret)
        self._authenticator = self._make_authenticator()
        self._usual = self._authenticator.usual if isinstance(self._authenticator, Unverified) else None
        self._trees = await CodeTrees.open(data_dir.trees, self.blobs)
        self._closers.append(self._trees.close)
        self.runtimes = Runtimes(cache=data_dir.cache, nearest=settings.nearest_runtime)
        self._locks = KeyedLocks()
        self._settler = Settler(
            store=self.store,
            preparation=UnpackedCode(store=self.store, trees=self._trees, runtimes=self.runtimes),
            locks=self._locks,
            delay=STRICT_SETTLE_SECONDS if settings.strict_states else 0.0,
        )
        specs = Specs(
            store=self.store,
            trees=self._trees,
            endpoints=ServiceEndpoints(self._endpoint, settings.endpoint_url, settings.endpoint_urls),
            runtimes=self.runtimes,
            credentials=self._credentials,
            sdk_variables=lambda: sdk_variables(data_dir.cache),
            init_seconds=settings.limits.init_seconds,
        )
        self.links = await EmbeddedLinks.open(settings, data_dir=data_dir, on_logs=self._take_logs)
        self.metrics.collect_from(self.links.gauges)
        self._closers.append(self.links.close)
        index = FunctionIndex(
            store=self.store,
            make_spec=specs.make,
            recorder=lambda account, function, qualifier: self.metrics.invocation(
                account=account, function=function, qualifier=qualifier, mode="RequestResponse"
            ),
            settled=None if settings.strict_states else self._settler.await_settled,
            draw=random.random,
            observer=self.links.observer(specs.make),
        )
        self.store.listeners.append(index.apply)
        self._follow(index.run(), "index")
        self._follow(self._settler.run(), "settler")
        self._closers.append(self._settler.stop)
        self.events.employ(index=index, store=self.store, links=self.links.port, metrics=self.metrics)
        self._closers.append(self.events.put_down)
        self._follow(self.events.run(), "events")
        sweeper = Sweeper(store=self.store, blobs=self.blobs, trees=self._trees, clock=_epoch_ms)
        self._follow(sweeper.run(), "sweeper")
        guard = BrowserGuard((*settings.allowed_hosts, settings.host))
        # The access line is written around ASGI, which the short way does not pass.
        self.quick = (
            None
            if settings.access_log
            else QuickInvoke(
                allows_host=guard.allows_host,
                authenticate=self._caller,
                router=index,
                links=self.links.port,
                in_flight=self.metrics.in_flight,
                start_task=lambda work: self._follow(work, "look up a function that has no environment", forget=True),
            )
        )
        self.application = Gateway(
            guard=guard,
            invoke=InvokePath(
                authenticate=self._caller,
                router=index,
                links=self.links.port,
                limits=settings.limits,
                in_flight=self.metrics.in_flight,
                events=self.events.intake,
            ),
            stream=StreamPath(
                authenticate=self._caller,
                router=index,
                links=self.links.port,
                limits=settings.limits,
                in_flight=self.metrics.in_flight,
            ),
            control_plane=self._loaded_control_plane,
            metrics=self.metrics,
            access_log=AccessLog(sys.stdout) if settings.access_log else None,
            healthy=lambda: self._trouble,
        )

    def load_control_plane(self) -> None:
        """Begin to load what the control plane needs; called once the gateway listens."""
        if self._control_plane is None:
            self._control_plane = asyncio.create_task(asyncio.to_thread(self._build_control_plane), name="load the control plane")
            # What is loaded now stays; the collector need not walk it again and again while invocations make garbage.
            self._control_plane.add_done_callback(lambda _: gc.freeze())

    async def close(self) -> None:
        """Stop everything, in the reverse order of its start. Idempotent."""
        if self._control_plane is not None:
            await asyncio.wait([self._control_plane])
        for task in reversed(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        while self._closers:
            await self._closers.pop()()

    # -- parts ----------------------------------------------------------------------------------------------------
    def _make_authenticator(self) -> Authenticator:
        settings = self._settings
        defaults = Defaults(account=settings.account, region=settings.region)
        if settings.access_key_id is None or settings.secret_access_key is None:
            return Unverified(defaults=defaults, session_keys=self._session_keys)
        key = OneKey(settings.access_key_id, settings.secret_access_key.get_secret_value())
        return Verified(credentials=key, defaults=defaults, session_keys=self._session_keys)

    def _caller(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], body: bytes) -> Caller:
        identity = self._usual(headers) if self._usual is not None else None
        if identity is None:
            identity = self._authenticator.identify(_signed(scope, body), now=time.time())
        return Caller(identity.account, identity.region)

    def _credentials(self, version: Version) -> dict[str, str]:
        """Session keys for Kappa's own API; the developer's AWS credentials only where told so."""
        region = {"AWS_REGION": version.region, "AWS_DEFAULT_REGION": version.region}
        if self._settings.pass_aws_credentials:
            given = {name: self._environment[name] for name in _CREDENTIAL_VARIABLES if name in self._environment}
            if given:
                return region | given
        return session_variables(
            self._session_keys,
            account=version.account,
            region=version.region,
            role=version.configuration.role,
            function_arn=function_arn(version.account, version.region, version.function),
            now=time.time(),
            seconds=SESSION_SECONDS,
        )

    def _take_logs(self, spec: VersionSpec, lines: Sequence[LogLine], streams: Mapping[int, str]) -> None:
        group = LogGroup(AccountId(spec.account), Region(spec.region), spec.log_group)
        events = [LogEvent(line.timestamp_ms, line.message, streams.get(line.stream, ""), line.request_id) for line in lines]
        self.logs.take(group, events)

    async def _loaded_control_plane(self) -> Application:
        self.load_control_plane()
        assert self._control_plane is not None
        return await asyncio.shield(self._control_plane)

    def _build_control_plane(self) -> Application:
        """Runs in a thread: importing the web framework and the service model takes half a second."""
        from kappa_gateway.embedded.control_plane import build_control_plane  # noqa: PLC0415

        return build_control_plane(
            settings=self._settings,
            store=self.store,
            blobs=self.blobs,
            logs=self.logs,
            events=self.events,
            settler=self._settler,
            locks=self._locks,
            authenticator=self._authenticator,
            code_links=CodeLinks(self._data_dir.secret, now=time.time),
            answered=self.metrics.api_request,
            version=distribution_version("kappa-faas"),
        )

    def _follow(self, work: Coroutine[Any, Any, object], name: str, *, forget: bool = False) -> None:
        """Run a part until the end. One that fails makes the gateway unhealthy, loudly: it cannot serve half."""
        task = asyncio.create_task(work, name=name)

        def ended(done: asyncio.Task[object]) -> None:
            if forget:
                self._tasks.remove(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                _log.error("%s failed", name, exc_info=error)
                self._trouble = f"{name} failed: {error}"

        self._tasks.append(task)
        task.add_done_callback(ended)


def _signed(scope: Mapping[str, Any], body: bytes) -> SignedRequest:
    return SignedRequest(
        method=scope["method"],
        raw_path=scope.get("raw_path") or scope["path"].encode(),
        query_string=scope["query_string"],
        headers=scope["headers"],
        body=body,
    )


def _epoch_ms() -> int:
    return time.time_ns() // 1_000_000
