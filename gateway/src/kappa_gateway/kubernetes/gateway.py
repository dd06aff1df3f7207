"""The gateway of a cluster put together: what :mod:`kappa_gateway.embedded.gateway` is on a laptop, with other drivers behind the ports.

    Kubernetes API ─► store, access keys, reviews      PostgreSQL or S3 ─► code; PostgreSQL ─► events
    TLS links ─► pods, other gateways                  Lease ─► scaler, settler and sweeper, in one gateway at a time

The one place that knows every part, in the order in which they start and stop; it holds no rule of its own. Every gateway serves all
requests; what only one may do begins and ends with its term.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib.metadata import version as distribution_version
from typing import Any, Final

from kappa_core.link.frames import LogLine
from kappa_core.memory import MemoryLogStore
from kappa_core.ports.blobs import BlobStore
from kappa_core.ports.logs import LogEvent, LogGroup
from kappa_core.ports.queue import Bounds
from kappa_core.resources import AccountId, Key, Region
from kappa_core.spec import VersionSpec
from kappa_crds import names
from kappa_crds.api import KubernetesApi, Object, api_path
from kappa_crds.watching import ChangeType, Informer
from kappa_gateway.asgi import Application, Gateway
from kappa_gateway.auth.browser import BrowserGuard
from kappa_gateway.auth.identity import Authenticator, Defaults, Unverified
from kappa_gateway.auth.session_keys import SessionKeys
from kappa_gateway.code.downloads import CodeDownloads
from kappa_gateway.code.intake import CodeIntake
from kappa_gateway.code.links import CodeLinks
from kappa_gateway.code.s3 import S3Settings
from kappa_gateway.events.assembly import AsyncEvents
from kappa_gateway.hot.index import FunctionIndex
from kappa_gateway.hot.invoke import InvokePath
from kappa_gateway.hot.quick import QuickInvoke
from kappa_gateway.hot.stream import StreamPath
from kappa_gateway.kubernetes.access_keys import LABEL, AccessKeys
from kappa_gateway.kubernetes.admission import Admission
from kappa_gateway.kubernetes.bearer import ClusterAuthenticator
from kappa_gateway.kubernetes.cluster_links import ClusterLinks
from kappa_gateway.kubernetes.code_download import Download
from kappa_gateway.kubernetes.code_sources import CodeSources
from kappa_gateway.kubernetes.layer_publishing import LayerPublisher
from kappa_gateway.kubernetes.permissions import Permissions
from kappa_gateway.kubernetes.places import Places
from kappa_gateway.kubernetes.preparing import ClusterPreparation
from kappa_gateway.kubernetes.public_addresses import PublicAddresses
from kappa_gateway.kubernetes.reviews import Reviews
from kappa_gateway.kubernetes.scalable import ScalableConditions
from kappa_gateway.kubernetes.settings import ClusterSettings
from kappa_gateway.kubernetes.specs import PodSpecs
from kappa_gateway.kubernetes.store import KubernetesResourceStore
from kappa_gateway.kubernetes.store_namespaces import DEFAULT_ACCOUNT
from kappa_gateway.links.sealing import SpecSeal
from kappa_gateway.observe.access import AccessLog
from kappa_gateway.observe.function_logs import FunctionLogs
from kappa_gateway.observe.metrics import Metrics
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.settle import Settler
from kappa_gateway.operations.sweep import Sweeper
from kappa_gateway.settings import SettingsError
from kappa_gateway.specs import ServiceEndpoints
from kappa_gateway.stores.absent import AbsentBlobStore, AbsentEventQueue
from kappa_gateway.stores.announced import AnnouncedStore
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_blobs import PostgresBlobStore
from kappa_gateway.stores.postgres_queue import PostgresEventQueue
from kappa_gateway.stores.s3_blobs import S3BlobSettings, S3BlobStore

_log = logging.getLogger(__name__)

SIGNING_KEY_BYTES: Final = 32
STARTING: Final = "this gateway starts"
LEAVING: Final = "this gateway leaves"


class ClusterGateway:
    """See the module. Use :meth:`open`; then serve :attr:`application`, :meth:`leave` when told to stop, and :meth:`close` at the end."""

    application: Gateway
    quick: QuickInvoke | None

    def __init__(self, settings: ClusterSettings, api: KubernetesApi) -> None:
        self._settings = settings
        self._api = api
        self._tasks: list[asyncio.Task[object]] = []
        self._closers: list[Callable[[], Coroutine[Any, Any, object]]] = []
        self._control_plane: asyncio.Task[Application] | None = None
        self._broken: str | None = None
        self._unready: str | None = STARTING
        self._term: int | None = None
        self._sweeping: asyncio.Task[object] | None = None
        self.metrics = Metrics()

    @classmethod
    async def open(cls, settings: ClusterSettings, api: KubernetesApi, /) -> ClusterGateway:
        """Start every part; ``api`` stays the caller's. Raises StoreUnavailable, BlobError, ListenError, LinkTlsError and SettingsError
        with one line each."""
        gateway = cls(settings, api)
        try:
            await gateway._start()
        except BaseException:
            await gateway.close()
            raise
        return gateway

    async def _start(self) -> None:
        settings = self._settings
        secret = _signing_key(settings)
        objects = await KubernetesResourceStore.open(
            self._api,
            default_namespace=settings.namespace_default,
            default_region=settings.region,
            namespaces=settings.watch_namespaces,
            namespace_selector=settings.namespace_selector,
        )
        self.store = AnnouncedStore(objects)
        self._closers.append(self.store.close)
        self.objects = objects
        await self._open_stores()
        self.logs = MemoryLogStore(clock_ms=_epoch_ms, total_bytes=settings.log_bytes)
        self._closers.append(self.logs.close)
        self._printed = FunctionLogs(sys.stdout) if settings.function_logs else None

        self._session_keys = SessionKeys(secret)
        self._code_links = CodeLinks(secret, now=time.time)
        self._make_callers()
        self._make_settler()
        specs = PodSpecs(
            store=self.store,
            endpoints=ServiceEndpoints(settings.function_url, settings.endpoint_url, settings.endpoint_urls),
            links=self._code_links,
            session_keys=self._session_keys,
            session_seconds=settings.session_seconds,
            init_seconds=settings.limits.init_seconds,
            runtimes=settings.known_runtimes,
            now=time.time,
        )
        self._conditions = ScalableConditions(self._api, place=self._function_place, clock_ms=_epoch_ms)
        self._closers.append(self._conditions.close)
        self.links = await ClusterLinks.open(
            settings,
            self._api,
            seal=SpecSeal(secret),
            locate=self._locate,
            on_logs=self._take_logs,
            on_cause=self._conditions.cause,
            on_term=self._on_term,
        )
        self.links.port.renew = specs.renewed
        self._closers.append(self.links.close)
        self.metrics.collect_from(self.links.gauges)
        self._index = index = FunctionIndex(
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
        if self._events is not None:
            self._events.employ(index=index, store=self.store, links=self.links.port, metrics=self.metrics)
            self._closers.append(self._events.put_down)
            if isinstance(self._queue, PostgresEventQueue):
                self._queue.listen(self._events.wake)
            self._follow(self._events.run(), "events")
        self._serve(index)
        self._election = self._follow(self.links.run(), "election")
        self._follow(self._become_ready(), "greetings", forget=True)

    async def _open_stores(self) -> None:
        settings = self._settings
        self.blobs: BlobStore = AbsentBlobStore()
        self._events: AsyncEvents | None = None
        self._queue: PostgresEventQueue | AbsentEventQueue = AbsentEventQueue()
        postgres = None
        if settings.postgres_dsn is not None:
            postgres = await Postgres.open(settings.postgres_dsn.get_secret_value())
            self._closers.append(postgres.close)
            queue = self._queue = await PostgresEventQueue.open(postgres, bounds=Bounds(total_bytes=settings.async_queue_bytes))
            self._closers.append(queue.close)
            self._events = AsyncEvents(queue, settings, clock_ms=queue.clock_ms)
        cache = settings.cache_dir / "archives"
        if settings.blobs_s3_bucket is not None:
            bucket = _bucket(settings, settings.blobs_s3_bucket)
            self.blobs = await S3BlobStore.open(bucket, cache=cache, cache_bytes=settings.cache_bytes)
        elif postgres is not None:
            self.blobs = await PostgresBlobStore.open(postgres, cache=cache, cache_bytes=settings.cache_bytes)
        self._closers.append(self.blobs.close)

    def _make_callers(self) -> None:
        """Who may call, and do what."""
        settings = self._settings
        self._reviews = Reviews(self._api, audiences=settings.token_audiences)
        self._closers.append(self._reviews.close)
        places = Places(self.objects, default_region=settings.region)
        self._permissions = Permissions(self._reviews, places)
        self._waited_for: list[Informer] = []
        for namespace in settings.watch_namespaces or ("",):
            self._inform(api_path("v1", "serviceaccounts", namespace=namespace), places.put, places.remove, wait=False)
        defaults = Defaults(account=DEFAULT_ACCOUNT, region=settings.region)
        self._authenticator: Authenticator
        if settings.auth_mode == "anonymous":
            self._authenticator = Unverified(defaults=defaults, session_keys=self._session_keys)
        else:
            keys = AccessKeys(default_account=DEFAULT_ACCOUNT)
            self._inform(
                api_path("v1", "secrets", namespace=settings.namespace),
                keys.put,
                keys.remove,
                selector=f"{LABEL}=true",
                wait=True,
            )
            self._authenticator = ClusterAuthenticator(
                keys=keys, session_keys=self._session_keys, reviews=self._reviews, defaults=defaults, places=places
            )
        self._admission = Admission(self._authenticator, self._permissions, now=time.time)

    def _make_settler(self) -> None:
        settings = self._settings
        self._intake = CodeIntake(
            self.blobs,
            settings.limits,
            S3Settings(
                endpoint=settings.endpoint_urls.get("s3") or settings.endpoint_url,
                access_key_id=settings.s3_access_key_id,
                secret_access_key=settings.s3_secret_access_key.get_secret_value(),
            ),
        )
        self._closers.append(self._intake.close)
        public = None if settings.code_from_private_addresses else PublicAddresses(private=settings.cluster_cidrs)
        download = Download(addresses=public, limit=settings.limits.unzipped_bytes)
        sources = CodeSources(api=self._api, intake=self._intake, download=download)
        self._layers = LayerPublisher(
            self._api,
            store=self.store,
            sources=sources,
            account_of=self.objects.account_of,
            default_region=settings.region,
            clock_ms=_epoch_ms,
        )
        self._closers.append(self._layers.close)
        for namespace in settings.watch_namespaces or ("",):
            path = api_path(names.API_VERSION, names.KINDS[names.LAYER_KIND], namespace=namespace)
            self._inform(path, self._layers.put, self._layers.remove, wait=False)
        self._locks = KeyedLocks()
        self._settler = Settler(
            store=self.store,
            preparation=ClusterPreparation(
                store=self.store,
                objects=self.objects,
                blobs=self.blobs,
                sources=sources,
                runtimes=settings.known_runtimes,
                limits=settings.limits,
            ),
            locks=self._locks,
            holds=lambda: self._term is not None,
            collects=False,  # Kubernetes does, by owner references
        )

    def _serve(self, index: FunctionIndex) -> None:
        settings = self._settings
        guard = BrowserGuard(settings.served_hosts, addresses=True)
        in_flight, port = self.metrics.in_flight, self.links.port
        # The access line is written around ASGI, which the short way does not pass.
        self.quick = (
            None
            if settings.access_log
            else QuickInvoke(
                allows_host=guard.allows_host,
                authenticate=self._admission,
                router=index,
                links=port,
                in_flight=in_flight,
                start_task=lambda work: self._follow(work, "look up a function that has no environment", forget=True),
            )
        )
        self.application = Gateway(
            guard=guard,
            invoke=InvokePath(
                authenticate=self._admission,
                router=index,
                links=port,
                limits=settings.limits,
                in_flight=in_flight,
                events=AbsentEventQueue() if self._events is None else self._events.intake,
            ),
            stream=StreamPath(
                authenticate=self._admission, router=index, links=port, limits=settings.limits, in_flight=in_flight
            ),
            control_plane=self._loaded_control_plane,
            metrics=self.metrics,
            access_log=AccessLog(sys.stdout) if settings.access_log else None,
            healthy=lambda: self._broken or self._unready,
            alive=lambda: self._broken,
            downloads=CodeDownloads(blobs=self.blobs, links=self._code_links),
        )

    # -- its life ------------------------------------------------------------------------------------------------------
    def load_control_plane(self) -> None:
        """Begin to load what the control plane needs; called once the gateway listens."""
        if self._control_plane is None:
            self._control_plane = asyncio.create_task(asyncio.to_thread(self._build_control_plane), name="load the control plane")
            # What is loaded now stays; the collector need not walk it again and again while invocations make garbage.
            self._control_plane.add_done_callback(lambda _: gc.freeze())

    async def _become_ready(self) -> None:
        """Requests come once this gateway knows the keys and has been greeted by the pods that run."""
        for informer in self._waited_for:
            await informer.synced.wait()
        await self.links.greeted()
        if self._unready == STARTING:
            self._unready = None

    def leave(self) -> None:
        """Told to stop: no new requests, the scaler and idle environments to other gateways; what runs here goes on. Idempotent."""
        self._unready = LEAVING
        if self._events is not None:
            self._events.worker.rest()
        self.links.leave()
        self._election.cancel()  # gives the Lease up

    async def finish(self, seconds: float, /) -> None:
        """After :meth:`leave`, for as long as ``seconds``: let asynchronous events that run here end. What does not is run elsewhere."""
        if self._events is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._events.worker.at_rest()

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

    def _on_term(self, epoch: int | None) -> None:
        """This gateway holds the scaler from now on, and with it settles and sweeps; None: no longer."""
        self._term = epoch
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._conditions.forget()
        self._layers.stand_down()
        if epoch is not None:
            self._settler.take_over()
            self._layers.take_over()
            if not isinstance(self.blobs, AbsentBlobStore):
                sweeper = Sweeper(store=self.store, blobs=self.blobs, trees=_NoTrees(), clock=_epoch_ms)
                self._sweeping = self._follow(sweeper.run(), "sweeper", forget=True)

    # -- parts ---------------------------------------------------------------------------------------------------------
    def _inform(
        self,
        path: str,
        put: Callable[[Object], None],
        remove: Callable[[Object], None],
        *,
        selector: str = "",
        wait: bool,
    ) -> None:
        def changed(type_: ChangeType, found: Object) -> None:
            (remove if type_ == "DELETED" else put)(found)

        informer = Informer(self._api, path, on_change=changed, label_selector=selector)
        if wait:
            self._waited_for.append(informer)
        self._follow(informer.run(), f"watch {path}")

    def _function_place(self, uid: str) -> tuple[str, str] | None:
        for function in self._index.functions():
            if function.meta.uid == uid:
                place = self.objects.place(function.key)
                return None if place is None else (place.namespace, place.name)
        return None

    async def _locate(self, spec: VersionSpec) -> tuple[str, str] | None:
        """Namespace and name of the object of a published version."""
        key = Key("FunctionVersion", AccountId(spec.account), Region(spec.region), spec.function_name, spec.version)
        place = self.objects.place(key)
        if place is not None:
            return place.namespace, place.name
        found = await self.objects.read(key)
        return None if found is None else (found["metadata"]["namespace"], found["metadata"]["name"])

    def _take_logs(self, spec: VersionSpec, lines: Sequence[LogLine], streams: Mapping[int, str]) -> None:
        if self._printed is not None:
            self._printed.write(spec, lines, streams)
        group = LogGroup(AccountId(spec.account), Region(spec.region), spec.log_group)
        events = [LogEvent(line.timestamp_ms, line.message, streams.get(line.stream, ""), line.request_id) for line in lines]
        self._follow(self.logs.append(group, events), "append logs", forget=True)

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
            wake=(lambda: None) if self._events is None else self._events.wake,
            intake=self._intake,
            settler=self._settler,
            locks=self._locks,
            limits=self._settings.limits,
            strict_states=self._settings.strict_states,
            authenticator=self._authenticator,
            authorise=self._permissions.check_operation,
            code_links=self._code_links,
            answered=self.metrics.api_request,
            version=distribution_version("kappa-faas"),
        )

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


class _NoTrees:
    """Nothing is unpacked in a cluster's gateway."""

    async def sweep(self, keep: object, /) -> None:
        return None


def _signing_key(settings: ClusterSettings) -> bytes:
    """Raises SettingsError."""
    try:
        key = settings.signing_key_file.read_bytes()
    except OSError as error:
        raise SettingsError(f"KAPPA_SIGNING_KEY_FILE: {settings.signing_key_file} cannot be read: {error.strerror}") from None
    if len(key) < SIGNING_KEY_BYTES:
        raise SettingsError(f"KAPPA_SIGNING_KEY_FILE: {settings.signing_key_file} has less than {SIGNING_KEY_BYTES} bytes")
    return key


def _bucket(settings: ClusterSettings, name: str) -> S3BlobSettings:
    secret = settings.blobs_s3_secret_access_key
    return S3BlobSettings(
        bucket=name,
        region=settings.blobs_s3_region or settings.region,
        prefix=settings.blobs_s3_prefix,
        endpoint=settings.blobs_s3_endpoint,
        access_key_id=settings.blobs_s3_access_key_id,
        secret_access_key=None if secret is None else secret.get_secret_value(),
    )


def _epoch_ms() -> int:
    return time.time_ns() // 1_000_000
