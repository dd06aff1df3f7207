"""GatewayLinks: the links of one gateway put together - server, invocations, scaling, peers - and taken apart in the right order.

It holds no rule of its own. The provider is made by the caller, because only the caller knows whether environments are processes or
pods; it needs the addresses that this gateway and its peers are dialled at, which are known once the server listens.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from ssl import SSLContext
from typing import NamedTuple

from kappa_core.limits import Limits
from kappa_core.link.addresses import Tls
from kappa_core.link.capacity import Known
from kappa_core.link.frames import Hello, PeerHello
from kappa_core.link.policy import Policy, queue_or_scale
from kappa_core.link.transport import Link
from kappa_core.ports.environments import EnvironmentProvider
from kappa_gateway.links.killed import Autopsy
from kappa_gateway.links.peers import HolderLink, PeerLink, accept_peer
from kappa_gateway.links.scaling import OnCause, ProviderNews, Scaling
from kappa_gateway.links.sealing import SpecSeal
from kappa_gateway.links.server import LinkServer, Vouch
from kappa_gateway.links.shell import InvocationPort, OnLogs, SupervisorLink


class Membership(NamedTuple):
    """Who works together, by link address (``unix:/path``, ``tcp:host:port`` or ``tls:host:port``), by which all know each other."""

    me: str
    others: tuple[str, ...] = ()
    holder: str = ""
    """Who holds the scaler; empty: this gateway."""
    elected: bool = False
    """Who holds the scaler is found out while the gateways run: :meth:`GatewayLinks.take_over` and :meth:`GatewayLinks.follow`."""

    @property
    def holds(self) -> bool:
        """From the start on."""
        return not self.elected and (not self.holder or self.holder == self.me)


class GatewayLinks:
    """See the module. ``port`` runs invocations, ``scaling`` is told of limits."""

    def __init__(self, *, server: LinkServer, port: InvocationPort, scaling: Scaling, holder: HolderLink | None) -> None:
        self._server = server
        self.port = port
        self.scaling = scaling
        self._holder = holder
        self._provider: EnvironmentProvider | None = None

    @classmethod
    async def open(
        cls,
        *,
        membership: Membership,
        limits: Limits,
        idle_seconds: float,
        on_logs: OnLogs,
        on_cause: OnCause,
        policy: Policy = queue_or_scale,
        token: str = "",
        listen: str = "",
        ssl: SSLContext | None = None,
        vouch: Vouch | None = None,
        seal: SpecSeal | None = None,
        peer_token: Callable[[], str] | None = None,
        peer_tls: Tls | None = None,
        autopsy: Autopsy | None = None,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> GatewayLinks:
        """Listen, and begin to look for the holder of the scaler if that is another gateway. Raises ListenError.

        ``listen`` is where to serve if that is not the address ``membership.me`` at which others dial. ``peer_token`` is what this
        gateway shows to others, by default ``token``; ``peer_tls`` how it knows them.
        """
        port = InvocationPort(limits=limits, on_logs=on_logs, seal=seal, autopsy=autopsy)
        scaling = Scaling(
            me=membership.me,
            holder=membership.holds,
            gateways=list(membership.others),
            port=port,
            limits=limits,
            new_id=new_id,
            idle_seconds=idle_seconds,
            on_cause=on_cause,
            policy=policy,
        )
        port.news = scaling

        def supervisor(link: Link, hello: Hello) -> SupervisorLink | None:
            return port.supervisor_connected(link, hello)

        def peer(link: Link, hello: PeerHello) -> PeerLink | None:
            return accept_peer(link, hello, scaling) if scaling.holds else None

        server = LinkServer(gateway_id=membership.me, on_supervisor=supervisor, on_peer=peer, token=token, ssl=ssl, vouch=vouch)
        try:
            await server.listen(listen or membership.me)
        except BaseException:
            await scaling.close()
            raise
        holder = None
        if not membership.holds:
            holder = HolderLink(me=membership.me, scaling=scaling, token=peer_token or (lambda: token), tls=peer_tls)
            holder.follow(membership.holder)
        return cls(server=server, port=port, scaling=scaling, holder=holder)

    def provide(self, provider: EnvironmentProvider, *, news: ProviderNews | None = None) -> None:
        """Have environments started by this; at the holder of the scaler only. Closed with the links."""
        self._provider = provider
        self.scaling.provide(provider, news=news)

    def take_over(
        self,
        provider: EnvironmentProvider,
        *,
        news: ProviderNews | None = None,
        epoch: int,
        expected: Iterable[str],
        known: Iterable[Known] = (),
        causes_before: bool = False,
    ) -> None:
        """This gateway holds the scaler from now on, until :meth:`stand_down`; see :meth:`Scaling.take_over`."""
        if self._holder is not None:
            self._holder.follow("")
        self.scaling.provide(provider, news=news)
        self.scaling.take_over(epoch, expected=expected, known=known, causes_before=causes_before)

    def stand_down(self) -> None:
        """This gateway does not hold the scaler any more. The provider that it was given is the caller's to close."""
        self.scaling.stand_down()

    def follow(self, holder: str) -> None:
        """Another gateway, at this link address, holds the scaler; empty: nobody that is known."""
        assert self._holder is not None, "of gateways that elect"
        self._holder.follow(holder)

    async def close(self) -> None:
        """Fail what still waits, end what was started, close every connection. Idempotent."""
        self.port.close()
        await self.scaling.close()
        if self._holder is not None:
            await self._holder.close()
        await self._server.close()
        if self._provider is not None:
            await self._provider.close()
