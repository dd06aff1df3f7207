"""Who greets: pods and other gateways, by the ServiceAccount tokens that they show. The Vouch of the link's listener in a cluster.

A token says nothing here before the API server has reviewed it for the link's audience. The review names the pod and its UID; the
pod is then read from the API, because what matters is that it still exists and which revision it was made for. So a token of
another pod, of another audience or of a pod that is gone gets nothing, and a pod cannot say anything about itself.

Reviews are remembered until the token's end, at most for a while; pods are read every time. It refuses to answer without the API
server: who greets meanwhile is turned away and dials again, and connections that stand stay up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import msgspec

from kappa_crds import labels
from kappa_crds.api import ApiError, NotFound, Object, api_path
from kappa_gateway.links.server import PodIdentity, VouchError

REVIEWED_SECONDS: Final = 300.0
"""Longest that a review counts; what ends a token before its time is the end of its pod, and that is looked at every time."""
REFUSED_SECONDS: Final = 5.0
"""How long a refused token is not asked about again."""
REMEMBERED: Final = 10_000
_REVIEWS: Final = api_path("authentication.k8s.io/v1", "tokenreviews")
_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"
_ACCOUNT: Final = "system:serviceaccount:"


class ReviewApi(Protocol):
    """What this module needs of the API."""

    async def get(self, path: str, /) -> Object: ...

    async def post(self, path: str, body: Object, /) -> Object: ...


class Bearer(NamedTuple):
    """Whom the API server knows a token for."""

    namespace: str
    account: str
    """ServiceAccount."""
    pod: str
    pod_uid: str


class _Claims(msgspec.Struct):
    exp: float = 0.0


class Identities:
    """See the module. ``namespace`` and ``account`` name the gateways' own ServiceAccount; ``clock`` is epoch seconds."""

    def __init__(
        self,
        api: ReviewApi,
        *,
        namespace: str,
        account: str,
        audience: str = labels.TOKEN_AUDIENCE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._account = account
        self._audience = audience
        self._clock = clock
        self._reviewed: OrderedDict[bytes, tuple[Bearer | None, float]] = OrderedDict()
        """By digest of the token, with the time until which it counts."""
        self._pods: OrderedDict[str, PodIdentity] = OrderedDict()
        """By UID: who was vouched for."""

    # -- Vouch --------------------------------------------------------------------------------------------------------
    async def pod(self, token: str, /) -> PodIdentity | None:
        """See the port."""
        bearer = await self._review(token)
        if bearer is None or not bearer.pod_uid:
            return None
        try:
            found = await self._api.get(api_path("v1", "pods", namespace=bearer.namespace, name=bearer.pod))
        except NotFound:
            return None
        except ApiError as error:
            raise VouchError(str(error)) from error
        metadata = found["metadata"]
        revision = (metadata.get("annotations") or {}).get(labels.REVISION, "")
        ended = (found.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
        if metadata["uid"] != bearer.pod_uid or ended or not revision:
            return None
        identity = PodIdentity(bearer.namespace, bearer.pod, bearer.pod_uid, revision)
        self._pods[bearer.pod_uid] = identity
        self._pods.move_to_end(bearer.pod_uid)
        if len(self._pods) > REMEMBERED:
            self._pods.popitem(last=False)
        return identity

    async def gateway(self, token: str, /) -> bool:
        """See the port."""
        bearer = await self._review(token)
        return bearer is not None and (bearer.namespace, bearer.account) == (self._namespace, self._account)

    # -- what was vouched for -------------------------------------------------------------------------------------------
    def known(self, pod_uid: str) -> PodIdentity | None:
        """The pod of this UID that was vouched for."""
        return self._pods.get(pod_uid)

    # -- reviews --------------------------------------------------------------------------------------------------------
    async def _review(self, token: str) -> Bearer | None:
        if not token:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        now = self._clock()
        known = self._reviewed.get(digest)
        if known is not None and now < known[1]:
            return known[0]
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        try:
            status = (await self._api.post(_REVIEWS, body)).get("status") or {}
        except ApiError as error:
            raise VouchError(str(error)) from error
        bearer = self._bearer(status)
        until = now + REFUSED_SECONDS if bearer is None else min(now + REVIEWED_SECONDS, _expiry(token))
        self._reviewed[digest] = (bearer, until)
        self._reviewed.move_to_end(digest)
        if len(self._reviewed) > REMEMBERED:
            self._reviewed.popitem(last=False)
        return bearer

    def _bearer(self, status: Object) -> Bearer | None:
        user = status.get("user") or {}
        name = user.get("username") or ""
        # An API server that knows nothing of audiences leaves them out, and would take a token that was made for itself.
        if (
            not status.get("authenticated")
            or self._audience not in (status.get("audiences") or ())
            or not name.startswith(_ACCOUNT)
        ):
            return None
        namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
        extra = user.get("extra") or {}
        return Bearer(namespace, account, _only(extra.get(_POD_NAME)), _only(extra.get(_POD_UID)))


def _only(values: object) -> str:
    return str(values[0]) if isinstance(values, list) and len(values) == 1 else ""


def _expiry(token: str) -> float:
    """When a token that was reviewed ends, in epoch seconds; 0 where it does not say so."""
    try:
        claims = token.split(".")[1]
        return msgspec.json.decode(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), type=_Claims).exp
    except (IndexError, binascii.Error, msgspec.MsgspecError):
        return 0.0
