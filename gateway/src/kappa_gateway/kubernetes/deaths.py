"""What became of a pod that is lost in the middle of an invocation: the Autopsy of the links in a cluster.

Under cgroup v2 the kernel kills all processes of a container that uses too much memory, the supervisor among them, so nobody is left to
say what happened. The kubelet knows it a moment later. A container that was killed is the function's error (AWS's ``signal: killed``);
a pod that was deleted or evicted, or whose node is gone, is the platform's, and stays a 502.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from kappa_crds.api import ApiError, NotFound, Object, api_path
from kappa_gateway.kubernetes.pods import exit_of
from kappa_gateway.links.killed import Ending
from kappa_gateway.links.server import PodIdentity

PATIENCE_SECONDS: Final = 3.0
"""How long the kubelet may take to report the end of a container, after the link has been down for its two seconds already."""
LOOK_SECONDS: Final = 0.25
_SKEW: Final = timedelta(seconds=2)
"""A node's clock may be behind this one's; and the kubelet cuts off fractions."""

logger = logging.getLogger("kappa.link")


class PodApi(Protocol):
    async def get(self, path: str, /) -> Object: ...


class Deaths:
    """See the module. ``identity`` knows the pods that were vouched for, by UID."""

    def __init__(
        self,
        api: PodApi,
        *,
        identity: Callable[[str], PodIdentity | None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._identity = identity
        self._sleep = sleep
        self._now = now

    async def __call__(self, supervisor_id: str, within_seconds: float, /) -> Ending | None:
        """See the port."""
        uid = supervisor_id.partition(".")[0]
        identity = self._identity(uid)
        if identity is None:
            return None
        since = self._now() - timedelta(seconds=within_seconds) - _SKEW
        path = api_path("v1", "pods", namespace=identity.namespace, name=identity.name)
        for _ in range(int(PATIENCE_SECONDS / LOOK_SECONDS)):
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    pod = await self._api.get(path)
            except NotFound:
                return None
            except (ApiError, TimeoutError) as error:
                logger.warning("nobody can say what became of the pod %s: %s", identity.name, error)
                return None
            if pod["metadata"]["uid"] != uid:
                return None
            ended = exit_of(pod, since=since)
            if ended is not None:
                return None if ended == "otherwise" else ended
            await self._sleep(LOOK_SECONDS)
        return None
