"""Election of one holder by a Lease: the operator's leader, and the gateway that holds the scaler.

:class:`Election` renews, watches and takes over one Lease object, and says at every change who holds it. It follows client-go's
rules: times of other machines are never compared, a holder is gone when its record has not changed for ``lease_seconds`` on this
process' own clock, and a holder that could not renew for two thirds of that stops being one before anybody else can begin.

``leaseTransitions`` is the epoch: it rises with every acquisition, also by a restarted process that finds its own identity in the
Lease. What is fenced by it must be fenced by whoever receives it; this module cannot stop a paused process from acting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from kappa_crds.api import AlreadyExists, ApiError, Conflict, NotFound, Object, api_path

RENEW_SHARE: Final = 2 / 3
"""Of the lease: after this long without a renewal the holder gives up."""
PAUSE_SHARE: Final = 2 / 15
"""Of the lease: between two attempts."""
ATTEMPT_SHARE: Final = RENEW_SHARE / 2
"""Of the lease: the longest of one attempt. A holder has two of them, so that a server that is slow does not cost it the Lease, nor
one connection that hangs."""

log = logging.getLogger(__name__)


class LeaseApi(Protocol):
    """What this module needs of the API."""

    async def get(self, path: str, /) -> Object: ...
    async def create(self, path: str, body: Object, /, *, field_manager: str) -> Object: ...
    async def replace(self, path: str, body: Object, /, *, field_manager: str) -> Object: ...


class Standing(msgspec.Struct, frozen=True):
    """Who holds the Lease, as this process knows it."""

    holder: str = ""
    """Empty: nobody, or not known yet."""
    epoch: int = 0
    mine: bool = False


class Election:
    """One candidate. :meth:`run` until cancelled; ``changed`` is called with every new :class:`Standing`."""

    def __init__(
        self,
        api: LeaseApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        field_manager: str,
        lease_seconds: float = 15.0,
        changed: Callable[[Standing], None] = lambda standing: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``identity`` differs from every other candidate's; ``lease_seconds`` is the time until somebody else takes over."""
        self._api = api
        self._collection = api_path("coordination.k8s.io/v1", "leases", namespace=namespace)
        self._path = api_path("coordination.k8s.io/v1", "leases", namespace=namespace, name=name)
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._manager = field_manager
        self._seconds = lease_seconds
        self._changed = changed
        self._now = now
        self._seen: Object | None = None
        self._seen_at = 0.0
        self._expiry: asyncio.TimerHandle | None = None
        self._attempted_at = float("-inf")
        self._written: Object | None = None
        """The Lease as this process wrote it last."""
        self.standing = Standing()

    @property
    def silent_seconds(self) -> float:
        """Since this process last heard of the Lease: the sign that the election itself is alive."""
        return asyncio.get_running_loop().time() - self._attempted_at

    async def run(self) -> None:
        """Take part until cancelled; then let go of the Lease, so that the next one need not wait."""
        try:
            while True:
                await self._attempt()
                await asyncio.sleep(self._seconds * PAUSE_SHARE)
        finally:
            await self._release()

    async def _attempt(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._seconds * ATTEMPT_SHARE):
                await self._take_or_renew(began)
            self._attempted_at = loop.time()
        except (AlreadyExists, Conflict):
            log.debug("lease %s: somebody else was faster", self._name)
            self._attempted_at = loop.time()
        except TimeoutError:
            log.warning("lease %s: the API server does not answer", self._name)
        except ApiError as error:
            log.warning("lease %s: %s", self._name, error)

    async def _take_or_renew(self, began: float) -> None:
        if await self._renew(began):
            return
        try:
            lease = await self._api.get(self._path)
        except NotFound:
            body = self._record({"metadata": {"name": self._name, "namespace": self._namespace}}, epoch=1, acquired=True)
            self._holds(await self._api.create(self._collection, body, field_manager=self._manager), began)
            return
        spec: dict[str, Any] = lease.get("spec") or {}
        holder, epoch = spec.get("holderIdentity") or "", int(spec.get("leaseTransitions") or 0)
        if self.standing.mine and holder == self._identity and epoch == self.standing.epoch:
            body = self._record(lease, epoch=epoch, acquired=False)
        elif self._free(lease, holder=holder, at=began):
            body = self._record(lease, epoch=epoch + 1, acquired=True)
        else:
            self._stand(Standing(holder, epoch))
            return
        self._holds(await self._api.replace(self._path, body, field_manager=self._manager), began)

    async def _renew(self, began: float) -> bool:
        """As client-go does: whoever holds the Lease writes it without reading it, which its resourceVersion makes safe. False: that
        is not possible."""
        if not self.standing.mine or self._written is None:
            return False
        body = self._record(self._written, epoch=self.standing.epoch, acquired=False)
        try:
            self._holds(await self._api.replace(self._path, body, field_manager=self._manager), began)
        except (Conflict, NotFound):
            self._written = None
            return False
        return True

    def _free(self, lease: Object, *, holder: str, at: float) -> bool:
        """Whether nobody, or only a process that is gone, holds the Lease."""
        if not holder or holder == self._identity:
            return True
        if self._seen is None or self._seen["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]:
            self._seen, self._seen_at = lease, at
        seconds = float((lease.get("spec") or {}).get("leaseDurationSeconds") or self._seconds)
        return at - self._seen_at >= seconds

    def _record(self, lease: Object, *, epoch: int, acquired: bool) -> Object:
        now = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            **(lease.get("spec") or {}),
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._seconds)),
            "leaseTransitions": epoch,
            "renewTime": now,
        }
        if acquired:
            spec["acquireTime"] = now
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": lease["metadata"], "spec": spec}

    def _holds(self, lease: Object, since: float) -> None:
        """``since`` is when the request was sent: the others' patience began no earlier."""
        self._cancel_expiry()
        self._written = lease
        self._expiry = asyncio.get_running_loop().call_at(since + self._seconds * RENEW_SHARE, self._give_up)
        self._stand(Standing(self._identity, int(lease["spec"]["leaseTransitions"]), mine=True))

    def _give_up(self) -> None:
        log.warning("lease %s: could not be renewed in time", self._name)
        self._stand(Standing(epoch=self.standing.epoch))

    def _stand(self, standing: Standing) -> None:
        if not standing.mine:
            self._cancel_expiry()
        if standing != self.standing:
            self.standing = standing
            self._changed(standing)

    def _cancel_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    async def _release(self) -> None:
        mine, epoch = self.standing.mine, self.standing.epoch
        self._stand(Standing())
        if not mine:
            return
        try:
            async with asyncio.timeout(self._seconds * ATTEMPT_SHARE):
                lease = await self._api.get(self._path)
                spec = lease.get("spec") or {}
                if spec.get("holderIdentity") == self._identity and spec.get("leaseTransitions") == epoch:
                    body = {**lease, "spec": {**spec, "holderIdentity": ""}}
                    await self._api.replace(self._path, body, field_manager=self._manager)
        except (ApiError, TimeoutError) as error:
            log.info("lease %s: not released (%s); it runs out by itself", self._name, error)
