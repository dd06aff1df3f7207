"""What every gateway is put together from, whichever drivers stand behind its ports: its running parts, the ways in, and its end.

:mod:`kappa_gateway.embedded.gateway` (a laptop) and :mod:`kappa_gateway.kubernetes.gateway` (a cluster) open the drivers, in an order of
their own, and hand them to what is written here once. It holds no rule and chooses no driver. The control plane's web framework and the
service model are loaded after the gateway listens, off the event loop: an invocation does not need them, and the first control-plane
request waits for what is left of that.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version as distribution_version
from typing import TYPE_CHECKING, Any, Protocol, Self

from kappa_core.link.frames import LogLine
from kappa_core.ports.blobs import BlobStore
from kappa_core.ports.logs import LogEvent, LogGroup, LogReader
from kappa_core.ports.queue import EventQueue
from kappa_core.resources import AccountId, Region
from kappa_core.spec import VersionSpec
from kappa_gateway.asgi import Application, Gateway
from kappa_gateway.auth.browser import BrowserGuard
from kappa_gateway.auth.identity import Authenticator
from kappa_gateway.clock import epoch_ms
from kappa_gateway.code.downloads import CodeDownloads
from kappa_gateway.code.intake import CodeIntake
from kappa_gateway.code.links import CodeLinks
from kappa_gateway.code.s3 import S3Settings
from kappa_gateway.hot.index import FunctionIndex, MakeSpec
from kappa_gateway.hot.invoke import Events, InvokePath
from kappa_gateway.hot.path import Authenticate
from kappa_gateway.hot.quick import QuickInvoke
from kappa_gateway.hot.stream import StreamPath
from kappa_gateway.links.changes import Changes
from kappa_gateway.links.provisioning import Provisioning
from kappa_gateway.links.scaling import Scaling
from kappa_gateway.links.shell import InvocationPort
from kappa_gateway.observe.access import AccessLog
from kappa_gateway.observe.metrics import Metrics
from kappa_gateway.observe.provisioned import provisioned_families
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.settle import Settler
from kappa_gateway.settings import GatewaySettings
from kappa_gateway.stores.announced import AnnouncedStore

if TYPE_CHECKING:
    from fastapi import APIRouter

    from kappa_gateway.api.app import Authorise

_log = logging.getLogger(__name__)


class Links(Protocol):
    """The links of a gateway, however its environments come to be."""

    @property
    def port(self) -> InvocationPort: ...

    @property
    def scaling(self) -> Scaling: ...

    def observer(self, make_spec: MakeSpec, /) -> Changes: ...


class AssembledGateway(ABC):
    """See the module. Serve :attr:`application` and :attr:`quick`, and call :meth:`close` at the end."""

    application: Gateway
    quick: QuickInvoke | None
    store: AnnouncedStore
    blobs: BlobStore
    logs: LogReader
    _authenticator: Authenticator
    _code_links: CodeLinks
    _settler: Settler
    _queue: EventQueue
    _provisioning: Provisioning

    def __init__(self, settings: GatewaySettings) -> None:
        self._gateway_settings = settings
        self._tasks: list[asyncio.Task[object]] = []
        self._closers: list[Callable[[], Coroutine[Any, Any, object]]] = []
        self._control_plane: asyncio.Task[Application] | None = None
        self._broken: str | None = None
        """The part that has failed, in one line."""
        self._locks = KeyedLocks()
        self.metrics = Metrics()

    # -- its life ------------------------------------------------------------------------------------------------------
    async def _started(self) -> Self:
        """Start every part, or none."""
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    @abstractmethod
    async def _start(self) -> None: ...

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

    def _follow(self, work: Coroutine[Any, Any, object], name: str, *, forget: bool = False) -> asyncio.Task[object]:
        """Run a part until the end. One that fails makes the gateway unhealthy, loudly: it cannot serve half."""
        task = asyncio.create_task(work, name=name)

        def ended(done: asyncio.Task[object]) -> None:
            if forget and done in self._tasks:
                self._tasks.remove(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                _log.error("%s failed", name, exc_info=error)
                self._broken = f"{name} failed: {error}"

        self._tasks.append(task)
        task.add_done_callback(ended)
        return task

    # -- the ways in ---------------------------------------------------------------------------------------------------
    def _open_index(self, *, links: Links, make_spec: MakeSpec) -> FunctionIndex:
        """What invocations find functions by, kept up to date by the store; the settler, which they may have to wait for; and what has
        environments kept ready for them."""
        observer = links.observer(make_spec)
        provisioning = self._provisioning = Provisioning(
            store=self.store, scaling=links.scaling, port=links.port, make_spec=make_spec, clock_ms=epoch_ms
        )
        self._closers.append(provisioning.close)
        links.scaling.on_provisioned = provisioning.changed
        observer.on_provisionable = provisioning.seen
        self.metrics.collect_from(
            lambda: provisioned_families(
                links.port.provisioned_use, in_flight=links.port.provisioned_in_flight, progress=links.scaling.provisioned
            )
        )
        index = FunctionIndex(
            store=self.store,
            make_spec=make_spec,
            recorder=lambda account, function, qualifier: self.metrics.invocation(
                account=account, function=function, qualifier=qualifier, mode="RequestResponse"
            ),
            settled=None if self._gateway_settings.strict_states else self._settler.await_settled,
            draw=random.random,
            observer=observer,
        )
        self.store.listeners.append(index.apply)
        self._follow(index.run(), "index")
        self._follow(self._settler.run(), "settler")
        self._closers.append(self._settler.stop)
        return index

    def _open_ways_in(
        self,
        *,
        guard: BrowserGuard,
        authenticate: Authenticate,
        router: FunctionIndex,
        links: InvocationPort,
        events: Events,
        healthy: Callable[[], str | None],
        alive: Callable[[], str | None] | None = None,
        downloads: CodeDownloads | None = None,
    ) -> None:
        """Make :attr:`application` and :attr:`quick`."""
        settings, in_flight = self._gateway_settings, self.metrics.in_flight
        # The access line is written around ASGI, which the short way does not pass.
        self.quick = (
            None
            if settings.access_log
            else QuickInvoke(
                allows_host=guard.allows_host,
                authenticate=authenticate,
                router=router,
                links=links,
                in_flight=in_flight,
                start_task=lambda work: self._follow(work, "look up a function that has no environment", forget=True),
            )
        )
        self.application = Gateway(
            guard=guard,
            invoke=InvokePath(
                authenticate=authenticate, router=router, links=links, limits=settings.limits, in_flight=in_flight, events=events
            ),
            stream=StreamPath(authenticate=authenticate, router=router, links=links, limits=settings.limits, in_flight=in_flight),
            control_plane=self._loaded_control_plane,
            metrics=self.metrics,
            access_log=AccessLog(sys.stdout) if settings.access_log else None,
            healthy=healthy,
            alive=alive,
            downloads=downloads,
        )

    # -- the control plane ---------------------------------------------------------------------------------------------
    @cached_property
    def _intake(self) -> CodeIntake:
        settings = self._gateway_settings
        intake = CodeIntake(
            self.blobs,
            settings.limits,
            S3Settings(
                endpoint=settings.endpoint_urls.get("s3") or settings.endpoint_url,
                access_key_id=settings.s3_access_key_id,
                secret_access_key=settings.s3_secret_access_key.get_secret_value(),
            ),
        )
        self._closers.append(intake.close)
        return intake

    @property
    def _authorise(self) -> Authorise | None:
        """Whether a caller may do what it asks for; None: everything."""
        return None

    @abstractmethod
    def _wake(self) -> None:
        """An event was put into the queue by another way than an invocation."""

    async def _loaded_control_plane(self) -> Application:
        self.load_control_plane()
        assert self._control_plane is not None
        return await asyncio.shield(self._control_plane)

    def _build_control_plane(self) -> Application:
        """Runs in a thread: importing the web framework and the service model takes half a second."""
        from kappa_gateway.control_plane import build_control_plane  # noqa: PLC0415

        return build_control_plane(
            store=self.store,
            blobs=self.blobs,
            logs=self.logs,
            queue=self._queue,
            wake=self._wake,
            intake=self._intake,
            settler=self._settler,
            locks=self._locks,
            limits=self._gateway_settings.limits,
            strict_states=self._gateway_settings.strict_states,
            authenticator=self._authenticator,
            authorise=self._authorise,
            code_links=self._code_links,
            provisioned=self._provisioning.state,
            answered=self.metrics.api_request,
            version=distribution_version("kappa-faas"),
            routers=self._routers(),
        )

    def _routers(self) -> Sequence[APIRouter]:
        """Routes of this assembly alone. Called in the same thread."""
        return ()


def log_events(spec: VersionSpec, lines: Sequence[LogLine], streams: Mapping[int, str]) -> tuple[LogGroup, list[LogEvent]]:
    """Lines of a link as its log store keeps them; ``streams`` are the log streams' names by link stream."""
    group = LogGroup(AccountId(spec.account), Region(spec.region), spec.log_group)
    return group, [LogEvent(line.timestamp_ms, line.message, streams.get(line.stream, ""), line.request_id) for line in lines]
