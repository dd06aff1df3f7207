"""Who a token belongs to: reviews of an API server in memory, and what is made of them."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from kappa_crds import labels
from kappa_crds.api import NotFound, Object, Unavailable
from kappa_gateway.kubernetes.identities import REFUSED_SECONDS, REVIEWED_SECONDS, Identities
from kappa_gateway.links.server import PodIdentity, VouchError

REVISION = "uid-f.$LATEST.1"
POD = PodIdentity("shop", "f-1", "pod-uid", REVISION)


def token(subject: str = "pod", *, expires: float = 3600.0) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires, "sub": subject}).encode()).decode().rstrip("=")
    return f"header.{claims}.signature"


class Api:
    """Reviews every token that it has an answer for; has one pod."""

    def __init__(self) -> None:
        self.statuses: dict[str, Object] = {}
        self.reviews: list[Object] = []
        self.pod: Object | None = {
            "metadata": {"namespace": "shop", "name": "f-1", "uid": "pod-uid", "annotations": {labels.REVISION: REVISION}},
            "status": {"phase": "Running"},
        }
        self.away = False

    def knows(self, text: str, **changes: Any) -> str:
        extra = {"authentication.kubernetes.io/pod-name": ["f-1"], "authentication.kubernetes.io/pod-uid": ["pod-uid"]}
        self.statuses[text] = {
            "authenticated": True,
            "audiences": [labels.TOKEN_AUDIENCE],
            "user": {"username": "system:serviceaccount:shop:default", "extra": extra},
        } | changes
        return text

    async def post(self, path: str, body: Object, /) -> Object:
        assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
        if self.away:
            raise Unavailable("connection refused")
        self.reviews.append(body["spec"])
        return {
            **body,
            "status": self.statuses.get(body["spec"]["token"], {"authenticated": False, "error": "invalid bearer token"}),
        }

    async def get(self, path: str, /) -> Object:
        if self.away:
            raise Unavailable("connection refused")
        if self.pod is None or path != "/api/v1/namespaces/shop/pods/f-1":
            raise NotFound(path)
        return self.pod


class Scene:
    def __init__(self) -> None:
        self.api = Api()
        self.now = 100.0
        self.identities = Identities(self.api, namespace="kappa-system", account="kappa-gateway", clock=lambda: self.now)

    def pod(self, text: str) -> PodIdentity | None:
        return asyncio.run(self.identities.pod(text))

    def gateway(self, text: str) -> bool:
        return asyncio.run(self.identities.gateway(text))


def test_a_pod_is_who_the_api_server_says() -> None:
    it = Scene()
    assert it.pod(it.api.knows(token())) == POD
    assert it.api.reviews == [{"token": token(), "audiences": [labels.TOKEN_AUDIENCE]}]
    assert it.identities.known("pod-uid") == POD


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"authenticated": False}, id="a token that is not good"),
        pytest.param({"audiences": ["https://kubernetes.default.svc"]}, id="one for another audience"),
        pytest.param({"audiences": []}, id="an API server that knows no audiences"),
        pytest.param({"user": {"username": "jane"}}, id="a person's"),
        pytest.param({"user": {"username": "system:serviceaccount:shop:default", "extra": {}}}, id="one bound to no pod"),
        pytest.param({"user": {}}, id="nobody's"),
    ],
)
def test_any_other_token_is_no_pod(changes: Any) -> None:
    it = Scene()
    assert it.pod(it.api.knows(token(), **changes)) is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(None, id="gone"),
        pytest.param({"metadata": {"uid": "another"}}, id="another of the same name"),
        pytest.param({"metadata": {"uid": "pod-uid", "annotations": {}}}, id="not made for a revision"),
        pytest.param({"status": {"phase": "Failed"}}, id="ended"),
    ],
)
def test_a_pod_has_to_be_there_every_time_it_greets(change: Any) -> None:
    it = Scene()
    it.api.knows(token())
    assert it.pod(token()) == POD
    it.api.pod = None if change is None or it.api.pod is None else {**it.api.pod, **change}
    assert it.pod(token()) is None


def test_nobody_is_vouched_for_without_the_api_server() -> None:
    it = Scene()
    it.api.away = True
    with pytest.raises(VouchError, match="connection refused"):
        it.pod(token())
    with pytest.raises(VouchError):
        it.gateway(token())


def test_a_review_counts_for_a_while_and_never_beyond_the_token() -> None:
    it = Scene()
    long, short = it.api.knows(token()), it.api.knows(token(expires=110.0))
    for text in (long, long, short, short):
        it.pod(text)
    assert len(it.api.reviews) == 2
    it.now = 111.0
    it.pod(long)
    it.pod(short)
    assert len(it.api.reviews) == 3
    it.now = 101.0 + REVIEWED_SECONDS
    it.pod(long)
    assert len(it.api.reviews) == 4


def test_a_refused_token_is_asked_about_again_soon_but_not_every_time() -> None:
    it = Scene()
    for _ in range(3):
        assert it.pod("rubbish") is None
    assert len(it.api.reviews) == 1
    it.now += REFUSED_SECONDS + 1
    it.pod("rubbish")
    assert len(it.api.reviews) == 2
    assert it.pod("") is None
    assert len(it.api.reviews) == 2


@pytest.mark.parametrize(
    ("user", "is_one"),
    [
        pytest.param("system:serviceaccount:kappa-system:kappa-gateway", True, id="its own ServiceAccount"),
        pytest.param("system:serviceaccount:kappa-system:kappa-operator", False, id="another one of the release"),
        pytest.param("system:serviceaccount:shop:kappa-gateway", False, id="the same name in another namespace"),
    ],
)
def test_a_gateway_is_known_by_its_service_account(user: str, is_one: bool) -> None:
    it = Scene()
    assert it.gateway(it.api.knows(token(), user={"username": user})) is is_one
