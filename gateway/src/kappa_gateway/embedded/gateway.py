"""The embedded gateway put together: drivers, operations, links and the hot path, in the order in which they start and stop.

The one place that knows every driver of a laptop. It holds no rule of its own; what is decided here is only which driver stands behind
which port. What is the same in a cluster is :mod:`kappa_gateway.assembly`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kappa_core.link.frames import LogLine
from kappa_core.names import function_arn
from kappa_core.spec import VersionSpec
from kappa_gateway.assembly import AssembledGateway, log_events
from kappa_gateway.auth.browser import BrowserGuard
from kappa_gateway.auth.credential import SignedRequest
from kappa_gateway.auth.identity import Authenticator, Defaults, Unverified, Verified
from kappa_gateway.auth.session_keys import SessionKeys
from kappa_gateway.clock import epoch_ms
from kappa_gateway.code.links import CodeLinks
from kappa_gateway.code.trees import CodeTrees
from kappa_gateway.embedded.data_dir import DataDir
from kappa_gateway.embedded.events import EmbeddedEvents
from kappa_gateway.embedded.links import EmbeddedLinks
from kappa_gateway.embedded.runtimes import Runtimes
from kappa_gateway.embedded.sdks import sdk_variables
from kappa_gateway.embedded.specs import Specs
from kappa_gateway.hot.path import Caller
from kappa_gateway.hot.version import Version
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


class EmbeddedGateway(AssembledGateway):
    """See the module. Use :meth:`open`."""

    logs: SqliteLogStore

    def __init__(self, settings: Settings, data_dir: DataDir, *, endpoint: str, environment: Mapping[str, str]) -> None:
        super().__init__(settings)
        self._settings = settings
        self._data_dir = data_dir
        self._endpoint = endpoint
        self._environment = environment

    @classmethod
    async def open(
        cls, settings: Settings, data_dir: DataDir, /, *, endpoint: str, environment: Mapping[str, str]
    ) -> EmbeddedGateway:
        """Start every part. ``endpoint`` is the URL that functions reach the gateway at; ``environment`` the process's own.

        Raises StoreUnavailable, BlobError and ListenError with one line each.
        """
        return await cls(settings, data_dir, endpoint=endpoint, environment=environment)._started()

    async def _start(self) -> None:
        settings, data_dir = self._settings, self._data_dir
        self.store = AnnouncedStore(await SqliteResourceStore.open(data_dir.resources))
        self._closers.append(self.store.close)
        self.blobs = blobs = await FileBlobStore.open(data_dir.blobs)
        self._closers.append(blobs.close)
        self.logs = logs = await SqliteLogStore.open(data_dir.logs, bounds=ring.Bounds(total_bytes=settings.log_bytes))
        self._closers.append(logs.close)
        self.metrics.count_dropped_log_lines(lambda: logs.dropped)

        self.events = await EmbeddedEvents.open(settings, data_dir=data_dir)
        self._closers.append(self.events.close)
        self._queue = self.events.queue

        self._session_keys = SessionKeys(data_dir.secret)
        self._code_links = CodeLinks(data_dir.secret, now=time.time)
        self._authenticator = self._make_authenticator()
        self._usual = self._authenticator.usual if isinstance(self._authenticator, Unverified) else None
        self._trees = await CodeTrees.open(data_dir.trees, blobs)
        self._closers.append(self._trees.close)
        self.runtimes = Runtimes(cache=data_dir.cache, nearest=settings.nearest_runtime)
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
        index = self._open_index(links=self.links, make_spec=specs.make)
        self.events.employ(index=index, store=self.store, links=self.links.port, metrics=self.metrics)
        self._closers.append(self.events.put_down)
        self._follow(self.events.run(), "events")
        sweeper = Sweeper(store=self.store, blobs=self.blobs, trees=self._trees, clock=epoch_ms)
        self._follow(sweeper.run(), "sweeper")
        self._open_ways_in(
            guard=BrowserGuard((*settings.allowed_hosts, settings.host)),
            authenticate=self._caller,
            router=index,
            links=self.links.port,
            events=self.events.intake,
            healthy=lambda: self._broken,
        )

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
            identity = self._authenticator.identify(SignedRequest.of(scope, body), now=time.time())
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
        self.logs.append(*log_events(spec, lines, streams))

    def _wake(self) -> None:
        self.events.wake()
