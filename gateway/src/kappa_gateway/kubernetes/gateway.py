"""The gateway of a cluster put together: what :mod:`kappa_gateway.embedded.gateway` is on a laptop, with other drivers behind the ports.

    Kubernetes API ─► store, access keys, reviews      PostgreSQL or S3 ─► code; PostgreSQL ─► events
    TLS links ─► pods, other gateways                  Lease ─► scaler, settler and sweeper, in one gateway at a time

The one place that knows every driver of a cluster, in the order in which they start and stop; it holds no rule of its own. Every gateway
serves all requests; what only one may do begins and ends with its term. What is the same on a laptop is :mod:`kappa_gateway.assembly`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from kappa_core.link.frames import LogLine
from kappa_core.memory import MemoryLogStore
from kappa_core.ports.blobs import BlobStore
from kappa_core.ports.queue import Bounds
from kappa_core.resources import AccountId, Key, Region
from kappa_core.spec import VersionSpec
from kappa_crds import names
from kappa_crds.api import KubernetesApi, Object, api_path
from kappa_crds.watching import ChangeType, Informer
from kappa_gateway.assembly import AssembledGateway, log_events
from kappa_gateway.auth.browser import BrowserGuard
from kappa_gateway.auth.identity import Authenticator, Defaults, Unverified
from kappa_gateway.auth.session_keys import SessionKeys
from kappa_gateway.clock import epoch_ms
from kappa_gateway.code.downloads import CodeDownloads, code_along
from kappa_gateway.code.links import CodeLinks
from kappa_gateway.events.assembly import AsyncEvents
from kappa_gateway.kubernetes.access_keys import LABEL, AccessKeys
from kappa_gateway.kubernetes.admission import Admission
from kappa_gateway.kubernetes.bearer import ClusterAuthenticator
from kappa_gateway.kubernetes.changed_sources import ChangedSources
from kappa_gateway.kubernetes.cluster_links import ClusterLinks
from kappa_gateway.kubernetes.code_download import Download
from kappa_gateway.kubernetes.code_sources import CodeSources
from kappa_gateway.kubernetes.gateway_addresses import gateway_addresses
from kappa_gateway.kubernetes.gathered_logs import GatheredLogs
from kappa_gateway.kubernetes.layer_publishing import LayerPublisher
from kappa_gateway.kubernetes.observations import Observations
from kappa_gateway.kubernetes.peer_logs import HttpPeers, PeerSigner
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
from kappa_gateway.observe.function_logs import FunctionLogs
from kappa_gateway.observe.links import watch_gauge
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

if TYPE_CHECKING:
    from fastapi import APIRouter

    from kappa_gateway.api.app import Authorise

SIGNING_KEY_BYTES: Final = 32
STARTING: Final = "this gateway starts"
LEAVING: Final = "this gateway leaves"


class ClusterGateway(AssembledGateway):
    """See the module. Use :meth:`open`; :meth:`leave` when told to stop, and :meth:`finish` before :meth:`close`."""

    def __init__(self, settings: ClusterSettings, api: KubernetesApi) -> None:
        super().__init__(settings)
        self._settings = settings
        self._api = api
        self._unready: str | None = STARTING
        self._term: int | None = None
        self._of_term: list[asyncio.Task[object]] = []
        """What runs only while this gateway holds the scaler."""

    @classmethod
    async def open(cls, settings: ClusterSettings, api: KubernetesApi, /) -> ClusterGateway:
        """Start every part; ``api`` stays the caller's. Raises StoreUnavailable, BlobError, ListenError, LinkTlsError and SettingsError
        with one line each."""
        return await cls(settings, api)._started()

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
        self._open_logs(secret)
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
        self._conditions = ScalableConditions(self._api, place=self._function_place, clock_ms=epoch_ms)
        self._closers.append(self._conditions.close)
        self.links = await ClusterLinks.open(
            settings,
            self._api,
            seal=SpecSeal(secret),
            locate=self._locate,
            bring=lambda spec: code_along(self.blobs, spec),
            on_logs=self._take_logs,
            on_cause=self._conditions.cause,
            on_term=self._on_term,
        )
        self.links.port.renew = specs.renewed
        self._closers.append(self.links.close)
        self.metrics.collect_from(self.links.gauges)
        self.metrics.collect_from(lambda: [watch_gauge(objects.silent_seconds)])
        self._index = index = self._open_index(links=self.links, make_spec=specs.make)
        if self._events is not None:
            self._events.employ(index=index, store=self.store, links=self.links.port, metrics=self.metrics)
            self._closers.append(self._events.put_down)
            if isinstance(self._queue, PostgresEventQueue):
                self._queue.listen(self._events.wake)
            self._follow(self._events.run(), "events")
        self._open_ways_in(
            guard=BrowserGuard(settings.served_hosts, addresses=True),
            authenticate=self._admission,
            router=index,
            links=self.links.port,
            events=AbsentEventQueue() if self._events is None else self._events.intake,
            healthy=lambda: self._broken or objects.broken or self._unready,
            alive=lambda: self._broken or objects.broken,
            downloads=CodeDownloads(blobs=self.blobs, links=self._code_links),
        )
        self._election = self._follow(self.links.run(), "election")
        self._follow(self._become_ready(), "greetings", forget=True)

    def _open_logs(self, secret: bytes) -> None:
        """Lines that come here stay here; whoever reads gets those of the other gateways as well."""
        settings = self._settings
        origin = int.from_bytes(hashlib.sha256(settings.pod_name.encode()).digest()[:6], "big")
        self._own_logs = MemoryLogStore(clock_ms=epoch_ms, origin=origin, total_bytes=settings.log_bytes)
        self._closers.append(self._own_logs.close)
        self._peer_signer = PeerSigner(secret)
        peers = HttpPeers(self._other_gateways, self._peer_signer)
        self._closers.append(peers.close)
        self.logs = GatheredLogs(self._own_logs, peers)

    async def _open_stores(self) -> None:
        settings = self._settings
        self.blobs: BlobStore = AbsentBlobStore()
        self._events: AsyncEvents | None = None
        self._queue = AbsentEventQueue()
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
        public = None if settings.code_from_private_addresses else PublicAddresses(private=settings.cluster_cidrs)
        download = Download(addresses=public, limit=settings.limits.unzipped_bytes)
        sources = CodeSources(api=self._api, intake=self._intake, download=download)
        self._layers = LayerPublisher(
            self._api,
            store=self.store,
            sources=sources,
            account_of=self.objects.account_of,
            default_region=settings.region,
            clock_ms=epoch_ms,
        )
        self._closers.append(self._layers.close)
        for namespace in settings.watch_namespaces or ("",):
            path = api_path(names.API_VERSION, names.KINDS[names.LAYER_KIND], namespace=namespace)
            self._inform(path, self._layers.put, self._layers.remove, wait=False)
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

    # -- its life ------------------------------------------------------------------------------------------------------
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
        self._own_logs.dismiss()
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

    def _on_term(self, epoch: int | None) -> None:
        """This gateway holds the scaler from now on, and with it settles and sweeps; None: no longer."""
        self._term = epoch
        for task in self._of_term:
            task.cancel()
        self._of_term.clear()
        self._conditions.forget()
        self._layers.stand_down()
        if epoch is not None:
            self._settler.take_over()
            self._layers.take_over()
            changed = ChangedSources(
                self._api.only_metadata(),
                namespaces=self._settings.watch_namespaces,
                made_of=self.objects.made_of,
                changed=self._settler.renew,
            )
            self._of_term.append(self._follow(changed.run(), "changed sources", forget=True))
            observations = Observations(self.store, lagging=self.objects.lagging)
            self._of_term.append(self._follow(observations.run(), "observations", forget=True))
            if not isinstance(self.blobs, AbsentBlobStore):
                sweeper = Sweeper(store=self.store, blobs=self.blobs, trees=_NoTrees(), clock=epoch_ms)
                self._of_term.append(self._follow(sweeper.run(), "sweeper", forget=True))

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

    async def _other_gateways(self) -> set[str]:
        """Where the other gateways answer HTTP, those that leave included: they still have their lines."""
        settings = self._settings
        found = await gateway_addresses(self._api, namespace=settings.namespace, service=settings.link_service, all_of_them=True)
        return {f"[{ip}]:{settings.port}" if ":" in ip else f"{ip}:{settings.port}" for ip in found - {settings.pod_ip}}

    def _routers(self) -> Sequence[APIRouter]:
        from kappa_gateway.kubernetes.peer_logs_route import build_router  # noqa: PLC0415

        return (build_router(own=self._own_logs, signer=self._peer_signer),)

    def _take_logs(self, spec: VersionSpec, lines: Sequence[LogLine], streams: Mapping[int, str]) -> None:
        if self._printed is not None:
            self._printed.write(spec, lines, streams)
        self._own_logs.append(*log_events(spec, lines, streams))

    def _wake(self) -> None:
        if self._events is not None:
            self._events.wake()

    @property
    def _authorise(self) -> Authorise:
        return self._permissions.check_operation


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
