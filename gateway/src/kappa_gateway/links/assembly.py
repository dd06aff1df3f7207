"""GatewayLinks: the links of one gateway put together - server, invocations, scaling, peers - and taken apart in the right order.

It holds no rule of its own. The provider is made by the caller, because only the caller knows whether environments are processes or
pods; it needs the addresses that this gateway and its peers are dialled at, which are known once the server listens.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from ssl import SSLContext
from typing import NamedTuple

from kappa_core.limits import Limits
from kappa_core.link.frames import Hello, PeerHello
from kappa_core.link.transport import Link
from kappa_core.ports.environments import EnvironmentProvider
from kappa_gateway.links.peers import HolderLink, PeerLink, accept_peer
from kappa_gateway.links.scaling import OnCause, ProviderNews, Scaling
from kappa_gateway.links.sealing import SpecSeal
from kappa_gateway.links.server import LinkServer, Vouch
from kappa_gateway.links.shell import InvocationPort, OnLogs, SupervisorLink


class Membership(NamedTuple):
    """Who works together, by link address (``unix:/path`` or ``tcp:host:port``), the same in every gateway's settings."""

    me: str
    others: tuple[str, ...] = ()
    holder: str = ""
    """Who holds the scaler; empty: this gateway."""

    @property
    def holds(self) -> bool:
        return not self.holder or self.holder == self.me


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
        token: str = "",
        ssl: SSLContext | None = None,
        vouch: Vouch | None = None,
        seal: SpecSeal | None = None,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> GatewayLinks:
        """Listen, and begin to look for the holder of the scaler if that is another gateway. Raises ListenError."""
        port = InvocationPort(limits=limits, on_logs=on_logs, seal=seal)
        scaling = Scaling(
            me=membership.me,
            holder=membership.holds,
            gateways=list(membership.others),
            port=port,
            limits=limits,
            new_id=new_id,
            idle_seconds=idle_seconds,
            on_cause=on_cause,
        )
        port.news = scaling

        def supervisor(link: Link, hello: Hello) -> SupervisorLink | None:
            return port.supervisor_connected(link, hello)

        def peer(link: Link, hello: PeerHello) -> PeerLink | None:
            return accept_peer(link, hello, scaling) if membership.holds else None

        server = LinkServer(gateway_id=membership.me, on_supervisor=supervisor, on_peer=peer, token=token, ssl=ssl, vouch=vouch)
        try:
            await server.listen(membership.me)
        except BaseException:
            await scaling.close()
            raise
        holder = None
        if not membership.holds:
            holder = HolderLink(me=membership.me, address=membership.holder, scaling=scaling, token=token)
            holder.start()
        return cls(server=server, port=port, scaling=scaling, holder=holder)

    def provide(self, provider: EnvironmentProvider, *, news: ProviderNews | None = None) -> None:
        """Have environments started by this; at the holder of the scaler only. Closed with the links."""
        self._provider = provider
        self.scaling.provide(provider, news=news)

    async def close(self) -> None:
        """Fail what still waits, end what was started, close every connection. Idempotent."""
        self.port.close()
        await self.scaling.close()
        if self._holder is not None:
            await self._holder.close()
        await self._server.close()
        if self._provider is not None:
            await self._provider.close()
