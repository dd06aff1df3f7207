"""The links of a gateway in a cluster: TLS listener, dispatcher, pod identities; and the scaler while this gateway holds the Lease.

    Lease mine ─► DeploymentProvider learns what there is ─► GatewayLinks.take_over ─► on_term(epoch)
    Lease lost ─► GatewayLinks.stand_down, on_term(None) ─► follow whoever holds it

Everything about one term (its provider, its informers) begins and ends with it. Without a holder waiters wait, warm invocations go
on. It refuses to write to custom resources: that environments of a revision cannot be started is told to ``on_cause``, for the
condition of its Function.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, Self

from prometheus_client.core import GaugeMetricFamily

from kappa_core.link.addresses import Tls
from kappa_core.ports.environments import ProviderError
from kappa_crds import labels, names
from kappa_crds.api import ApiError, KubernetesApi, api_path
from kappa_crds.leases import Election, Standing
from kappa_gateway.kubernetes.deaths import Deaths
from kappa_gateway.kubernetes.fleet import Ceiling
from kappa_gateway.kubernetes.gateway_addresses import gateway_addresses
from kappa_gateway.kubernetes.identities import Identities
from kappa_gateway.kubernetes.link_tls import LinkTls
from kappa_gateway.kubernetes.pods import pod_state
from kappa_gateway.kubernetes.provider import Bring, DeploymentProvider, Locate
from kappa_gateway.kubernetes.settings import ClusterSettings
from kappa_gateway.links.assembly import GatewayLinks, Membership
from kappa_gateway.links.changes import Changes, MakeSpec
from kappa_gateway.links.scaling import SUPERVISORS, OnCause, Scaling
from kappa_gateway.links.sealing import SpecSeal
from kappa_gateway.links.shell import InvocationPort, OnLogs
from kappa_gateway.observe.links import link_gauges

LEASE: Final = "kappa-scaler"
LEASE_SECONDS: Final = 8.0
"""A crashed holder is replaced after this and a second; a holder that hears nothing of the API server for 5.3 s stands down. Shorter
would have a slow API server move the scaler about; cold starts wait meanwhile, nothing else does."""
ENDPOINTS_SECONDS: Final = 2.0
GREETED_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 0.5
"""How often a gateway that leaves looks who holds the scaler."""

logger = logging.getLogger("kappa.scaler")

OnTerm = Callable[[int | None], None]
"""Takes the epoch of a term that begins here; None: it has ended."""


class ClusterLinks:
    """See the module. Use :meth:`open`, then :meth:`run` until the gateway leaves."""

    _links: GatewayLinks
    port: InvocationPort
    scaling: Scaling

    def __init__(
        self,
        settings: ClusterSettings,
        api: KubernetesApi,
        *,
        tls: LinkTls,
        locate: Locate,
        bring: Bring,
        on_cause: OnCause,
        on_term: OnTerm,
    ) -> None:
        self.causes: dict[str, str] = {}
        """By revision: why its environments cannot be started, as far as this gateway knows."""
        self._settings = settings
        self._identity = f"{settings.pod_name}@{settings.link_address.partition(':')[2]}"
        """In the Lease."""
        self._api = api
        self._tls = tls
        self._identities = Identities(api, namespace=settings.namespace, account=settings.service_account)
        self._locate = locate
        self._bring = bring
        self._on_cause = on_cause
        self._on_term = on_term
        self._term: asyncio.Task[None] | None = None
        self._provider: DeploymentProvider | None = None
        self._endings: set[asyncio.Task[None]] = set()
        self._changes: Changes | None = None
        self._watching: asyncio.Task[None] | None = None
        self.election = Election(
            api,
            namespace=settings.namespace,
            name=LEASE,
            identity=self._identity,
            field_manager=names.GATEWAY_MANAGER,
            lease_seconds=LEASE_SECONDS,
            changed=self._changed,
        )

    @classmethod
    async def open(
        cls,
        settings: ClusterSettings,
        api: KubernetesApi,
        *,
        seal: SpecSeal,
        locate: Locate,
        bring: Bring,
        on_logs: OnLogs,
        on_cause: OnCause,
        on_term: OnTerm = lambda epoch: None,
    ) -> Self:
        """Listen. ``locate`` finds the FunctionVersion object of a published version, ``bring`` reads its code if that is small.
        ``on_cause`` is told at the holder why environments of a revision cannot be started (empty: they can), perhaps several times
        the same; it must not raise. Raises LinkTlsError and ListenError."""
        tls = LinkTls(settings.link_tls_dir)
        held = cls(settings, api, tls=tls, locate=locate, bring=bring, on_cause=on_cause, on_term=on_term)
        held._links = await GatewayLinks.open(
            membership=Membership(me=settings.link_address, elected=True),
            listen=f"tls:{'[::]' if ':' in settings.pod_ip else '0.0.0.0'}:{settings.link_port}",  # noqa: S104 - who dials is vouched for
            limits=settings.limits,
            policy=settings.scaling_policy,
            idle_seconds=settings.idle_seconds,
            on_logs=on_logs,
            on_cause=held.cause,
            ssl=tls.server,
            vouch=held._identities,
            seal=seal,
            peer_token=lambda: settings.link_token_file.read_text(encoding="ascii").strip(),
            peer_tls=Tls(tls.client, settings.link_host),
            autopsy=Deaths(api, identity=held._identities.known),
        )
        held.port = held._links.port
        held.scaling = held._links.scaling
        return held

    async def run(self) -> None:
        """Take part in the election of the scaler's holder until cancelled, then let go of the Lease; keep the certificate fresh."""
        look = asyncio.ensure_future(self._tls.run())
        try:
            await self.election.run()
        finally:
            look.cancel()
            await asyncio.gather(look, return_exceptions=True)

    def observer(self, make_spec: MakeSpec, /) -> Changes:
        """What the index tells of changes. Once."""
        self._changes = Changes(self.port, make_spec=make_spec)
        return self._changes

    def gauges(self) -> Iterable[GaugeMetricFamily]:
        """For each scrape."""
        yield from link_gauges(self.port.stats())
        yield from self._tls.gauges()
        holds = self._links.scaling.holds
        yield GaugeMetricFamily("kappa_gateway_scaler", "Whether this gateway holds the scaler.", value=int(holds))

    def cause(self, revision: str, cause: str) -> None:
        """Why environments of a revision cannot be started; empty: they can."""
        if cause:
            self.causes[revision] = cause
        else:
            self.causes.pop(revision, None)
        self._on_cause(revision, cause)

    async def greeted(self) -> None:
        """Returns when every pod that ran at the beginning has greeted, or after GREETED_SECONDS: the gateway then knows what is idle."""
        try:
            async with asyncio.timeout(GREETED_SECONDS):
                awaited = await self._running_pods()
                while awaited - {name.partition(".")[0] for name in self.port.supervisors()}:  # noqa: ASYNC110 - at the start only
                    await asyncio.sleep(0.05)
        except TimeoutError:
            logger.info("not every function pod has greeted within %g s", GREETED_SECONDS)
        except ApiError as error:
            logger.warning("nobody can say which function pods there are: %s", error)

    def leave(self) -> None:
        """This gateway stops soon: idle environments park elsewhere, what is in flight ends here. Cancel :meth:`run` as well: it
        takes part in no election any more, but who waits here is still served by whoever holds the scaler."""
        self.port.leave()
        if self._watching is None:
            self._watching = asyncio.ensure_future(self._watch_holder())

    async def close(self) -> None:
        """End every connection. Scales nothing down. Idempotent."""
        self._stand_down()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._changes is not None:
            await self._changes.close()
        await self._links.close()
        await asyncio.gather(*self._endings, return_exceptions=True)

    # -- terms --------------------------------------------------------------------------------------------------------
    def _changed(self, standing: Standing) -> None:
        """The election's word, at once: a holder that is no longer one must not decide anything after this."""
        self._stand_down()
        if standing.mine:
            self._term = asyncio.ensure_future(self._lead(standing.epoch))
        else:
            self._follow(standing.holder)

    def _follow(self, holder: str) -> None:
        """``holder`` is an identity in the Lease: ``<pod>@<address>``."""
        address = holder.partition("@")[2]
        self._links.follow(f"tls:{address}" if address else "")

    async def _watch_holder(self) -> None:
        path = api_path("coordination.k8s.io/v1", "leases", namespace=self._settings.namespace, name=LEASE)
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                lease = await self._api.get(path)
            except ApiError as error:
                logger.warning("nobody can say who holds the scaler: %s", error)
                continue
            holder = (lease.get("spec") or {}).get("holderIdentity") or ""
            if holder != self._identity:
                self._follow(holder)

    def _stand_down(self) -> None:
        term, self._term = self._term, None
        provider, self._provider = self._provider, None
        if self._links.scaling.holds:
            logger.info("this gateway does not hold the scaler any more")
            self._links.stand_down()
            self.causes.clear()
            self._on_term(None)
        if term is not None or provider is not None:
            ending = asyncio.ensure_future(_end(term, provider))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    async def _lead(self, epoch: int) -> None:
        settings, links = self._settings, self._links
        while True:
            provider = self._provider = DeploymentProvider(
                self._api,
                links=links.port,
                identity=self._identities.known,
                on_ended=links.scaling.supervisor_ended,
                on_cause=self.cause,
                locate=self._locate,
                ceiling=Ceiling(per_function=settings.max_environments, total=settings.max_environments_total),
                bring=self._bring,
                namespaces=settings.watch_namespaces,
                holds=lambda: self.election.standing.mine and self.election.standing.epoch == epoch,
            )
            try:
                await provider.open()
                break
            except ProviderError as error:
                logger.warning("the scaler cannot be taken over yet: %s", error)
                await provider.close()
        others = await self._others()
        logger.info("this gateway holds the scaler, epoch %d", epoch)
        # Where there is no pod there can be no environment to wait for.
        expected = [*others, SUPERVISORS] if provider.has_pods else others
        links.take_over(provider, news=provider, epoch=epoch, expected=expected, known=provider.inherit(), causes_before=True)
        provider.begin()
        self._on_term(epoch)

    async def _others(self) -> list[str]:
        """The other gateways that callers reach, by the addresses of their links; none where the API server does not say. Nobody waits
        for an environment at one that still starts or is ending: to expect it would hold up all starts."""
        settings = self._settings
        try:
            async with asyncio.timeout(ENDPOINTS_SECONDS):
                addresses = await gateway_addresses(
                    self._api, namespace=settings.namespace, service=settings.link_service, all_of_them=False
                )
        except (ApiError, TimeoutError) as error:
            logger.warning("nobody can say which other gateways there are: %s", error)
            return []
        me = settings.link_address
        return sorted({settings.link_address_of(address) for address in addresses} - {me})

    async def _running_pods(self) -> set[str]:
        """UIDs of the function pods that can be expected to greet."""
        namespaces = self._settings.watch_namespaces or ("",)
        found: set[str] = set()
        for namespace in namespaces:
            pods, _ = await self._api.list(api_path("v1", "pods", namespace=namespace), label_selector=labels.REVISION_HASH)
            for pod in map(pod_state, pods):
                if pod.ready and not pod.deleted:
                    found.add(pod.uid)
        return found


async def _end(term: asyncio.Task[None] | None, provider: DeploymentProvider | None) -> None:
    if term is not None:
        term.cancel()
        await asyncio.gather(term, return_exceptions=True)
    if provider is not None:
        await provider.close()
