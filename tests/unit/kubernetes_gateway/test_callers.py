"""Who calls a gateway in a cluster and what they may do, from the request's headers to the answer of the hot path."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, NamedTuple

import pytest

from kappa_core.errors import (
    AccessDeniedException,
    LambdaError,
    MissingAuthenticationTokenException,
    UnrecognizedClientException,
)
from kappa_core.resources import AccountId, Key
from kappa_gateway.auth.credential import SignedRequest
from kappa_gateway.auth.identity import Defaults, Identity, Subject, Undecided, identified
from kappa_gateway.auth.session_keys import SessionKeys
from kappa_gateway.auth.signing import sign
from kappa_gateway.hot.path import Caller, Unadmitted
from kappa_gateway.kubernetes import permissions
from kappa_gateway.kubernetes.access_keys import AccessKeys
from kappa_gateway.kubernetes.admission import Admission, invoked
from kappa_gateway.kubernetes.bearer import ClusterAuthenticator
from kappa_gateway.kubernetes.permissions import OPERATIONS, Permissions
from kappa_gateway.kubernetes.places import Places
from kappa_gateway.kubernetes.reviews import Reviews
from kappa_gateway.operations.registry import OPERATIONS as IMPLEMENTED
from review_twin import ReviewTwin

NOW = 1_700_000_000.0
ACCOUNT = "000000000000"
TEAM = "111111111111"
INVOKE_HELLO = "/2015-03-31/functions/hello/invocations"


class Place(NamedTuple):
    namespace: str
    name: str


class Objects:
    """Namespaces ``default`` and ``team``, and a function that lies under another name than the API would give it."""

    def place(self, key: Key, /) -> Place | None:
        return Place("default", "hi") if key.name == "Hello_World" else None

    def account_of(self, namespace: str, /) -> AccountId | None:
        return {"default": AccountId(ACCOUNT), "team": AccountId(TEAM)}.get(namespace)

    def namespaces_of(self, account: AccountId, /) -> list[str]:
        return {ACCOUNT: ["default"], TEAM: ["team"]}.get(account, [])


class Door:
    """Everything that stands before the hot path, over a twin of the API server's reviews."""

    def __init__(self) -> None:
        self.api = ReviewTwin()
        self.keys = AccessKeys(default_account=ACCOUNT)
        self.session_keys = SessionKeys(b"k" * 32)
        self.places = Places(Objects(), default_region="us-east-1")
        reviews = Reviews(self.api, now=lambda: NOW)
        self.permissions = Permissions(reviews, self.places)
        self.authenticator = ClusterAuthenticator(
            keys=self.keys, session_keys=self.session_keys, reviews=reviews, defaults=Defaults(), places=self.places
        )
        self.admission = Admission(self.authenticator, self.permissions, now=lambda: NOW)

    def at_once(self, scope: dict[str, Any]) -> Caller:
        return self.admission(scope, dict(scope["headers"]), b"{}")

    async def admitted(self, scope: dict[str, Any]) -> Caller:
        try:
            return self.at_once(scope)
        except Unadmitted as unadmitted:
            return await unadmitted.admit()


def request(path: str = INVOKE_HELLO, *, token: str = "", **headers: str) -> dict[str, Any]:
    sent = {"host": "kappa", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if token:
        sent["authorization"] = f"Bearer {token}"
    lines = [(name.encode(), value.encode()) for name, value in sent.items()]
    return {"method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": lines}


def signed(path: str, key_id: str, secret: str, token: str | None = None) -> dict[str, Any]:
    added = sign(
        method="POST",
        target=path,
        headers={"Host": "kappa"},
        body=b"{}",
        access_key_id=key_id,
        secret=secret,
        session_token=token,
        region="eu-west-1",
        now=NOW,
    )
    return request(path, **{name.lower().replace("-", "_"): value for name, value in added.items()})


def test_the_first_request_of_a_token_asks_and_the_next_ones_do_not() -> None:
    async def scenario() -> None:
        door = Door()
        door.api.user("t", "ana")
        door.api.allowed.add(("ana", "create", "functions/invoke", ""))
        with pytest.raises(Unadmitted):
            door.at_once(request(token="t"))
        assert await door.admitted(request(token="t")) == Caller(ACCOUNT, "us-east-1")
        assert door.at_once(request(token="t")) == Caller(ACCOUNT, "us-east-1")
        assert door.api.asked == ["token", "ana create functions/invoke default hello"]

    asyncio.run(scenario())


def test_a_token_of_nobody_is_refused_in_awss_words() -> None:
    async def scenario() -> None:
        door = Door()
        for token in ("made up", "x" * 20_000, " "):
            with pytest.raises(UnrecognizedClientException, match="security token included in the request is invalid"):
                await door.admitted(request(token=token))

    asyncio.run(scenario())


def test_rights_end_at_the_function_that_a_rule_names() -> None:
    async def scenario() -> None:
        door = Door()
        door.api.user("t", "ana")
        door.api.allowed.add(("ana", "create", "functions/invoke", "hello"))
        await door.admitted(request(token="t"))
        with pytest.raises(AccessDeniedException, match=r"lambda:InvokeFunction .*create functions/invoke"):
            await door.admitted(request("/2015-03-31/functions/other/invocations", token="t"))

    asyncio.run(scenario())


def test_a_rule_names_the_object_whatever_the_function_is_called() -> None:
    async def scenario() -> None:
        door = Door()
        door.api.user("t", "ana")
        door.api.allowed.add(("ana", "create", "functions/invoke", "hi"))
        path = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3AHello_World/invocations"
        assert (await door.admitted(request(path, token="t"))).account == ACCOUNT

    asyncio.run(scenario())


def test_a_service_account_speaks_for_the_account_of_its_namespace_unless_headers_say_otherwise() -> None:
    async def scenario() -> None:
        door = Door()
        user = door.api.user("t", "system:serviceaccount:team:deployer")
        door.api.allowed.add((user, "create", "functions/invoke", ""))
        assert await door.admitted(request(token="t")) == Caller(TEAM, "us-east-1")
        other = request(token="t", x_kappa_account=ACCOUNT, x_kappa_region="eu-west-1")
        assert await door.admitted(other) == Caller(ACCOUNT, "eu-west-1")
        assert door.api.asked[1:] == [
            f"{user} create functions/invoke team hello",
            f"{user} create functions/invoke default hello-{door.api.asked[2].rpartition('-')[2]}",
        ]
        with pytest.raises(UnrecognizedClientException, match="twelve digits"):
            await door.admitted(request(token="t", x_kappa_account="12"))

    asyncio.run(scenario())


def test_an_account_without_a_namespace_is_nobodys_to_call() -> None:
    async def scenario() -> None:
        door = Door()
        door.api.user("t", "ana")
        with pytest.raises(AccessDeniedException, match="no namespace is that account"):
            await door.admitted(request(token="t", x_kappa_account="222222222222"))

    asyncio.run(scenario())


def test_a_key_without_a_subject_never_asks_and_belongs_to_its_account() -> None:
    door = Door()
    door.keys.put(key_secret(TEAM))
    assert door.at_once(signed(INVOKE_HELLO, "AKIA1", "s1")) == Caller(TEAM, "eu-west-1")
    assert door.api.asked == []


def test_a_key_with_a_subject_is_bound_by_its_rights() -> None:
    async def scenario() -> None:
        door = Door()
        door.keys.put(key_secret(ACCOUNT, review_as="team/deployer"))
        with pytest.raises(AccessDeniedException):
            await door.admitted(signed(INVOKE_HELLO, "AKIA1", "s1"))

    asyncio.run(scenario())


def test_a_function_may_do_what_the_service_account_of_its_role_may() -> None:
    async def scenario() -> None:
        door = Door()
        keys = door.session_keys.mint(
            ACCOUNT,
            role="arn:aws:iam::000000000000:role/orders",
            function_arn="arn:aws:lambda:eu-west-1:000000000000:function:caller",
            now=NOW,
            ttl=60,
        )
        scope = signed(INVOKE_HELLO, keys.access_key_id, keys.secret_access_key, keys.session_token)
        with pytest.raises(AccessDeniedException, match="system:serviceaccount:default:kappa-orders"):
            await door.admitted(scope)
        again = Door()
        again.api.allowed.add(("system:serviceaccount:default:kappa-orders", "create", "functions/invoke", ""))
        assert await again.admitted(scope) == Caller(ACCOUNT, "eu-west-1")

    asyncio.run(scenario())


def test_a_role_is_the_service_account_that_somebody_annotated_with_it() -> None:
    door = Door()
    role = "arn:aws:iam::000000000000:role/orders"
    annotated = {"metadata": {"namespace": "default", "name": "irsa", "annotations": {"lambda.kappa.dev/role": role}}}
    assert door.places.service_account(role, account=ACCOUNT, namespace="default") == "kappa-orders"
    door.places.put(annotated)
    assert door.places.service_account(role, account=ACCOUNT, namespace="default") == "irsa"
    assert door.places.service_account(role, account=ACCOUNT, namespace="team") == "kappa-orders"
    door.places.remove(annotated)
    assert door.places.service_account(role, account=ACCOUNT, namespace="default") == "kappa-orders"


def test_a_request_without_anything_is_told_what_is_missing() -> None:
    with pytest.raises(MissingAuthenticationTokenException):
        Door().at_once(request())


# -- the control plane -----------------------------------------------------------------------------------------------------
def ana() -> Identity:
    return Identity(account=ACCOUNT, region="us-east-1", access_key_id=None, subject=Subject(username="ana"))


def test_every_operation_has_a_right_of_its_own() -> None:
    assert IMPLEMENTED.keys() <= OPERATIONS.keys()
    for name, permission in OPERATIONS.items():
        if name.startswith(("Get", "List")):
            assert permission.verb in {"get", "list"}, name
        elif name.startswith(("Create", "Publish")):
            assert permission.verb == "create", name


def test_an_operation_that_the_table_lacks_is_nobodys() -> None:
    async def scenario() -> None:
        with pytest.raises(AccessDeniedException, match="cannot be granted"):
            await Door().permissions.check_operation(ana(), "AddPermission", {})

    asyncio.run(scenario())


def test_handing_a_role_to_a_function_needs_the_use_of_its_service_account() -> None:
    async def scenario() -> None:
        door = Door()
        door.api.allowed.add(("ana", "create", "functions", ""))
        params = {"FunctionName": "new", "Role": "arn:aws:iam::000000000000:role/orders"}
        with pytest.raises(AccessDeniedException, match=r"iam:PassRole .*serviceaccounts/kappa-orders in namespace default"):
            await door.permissions.check_operation(ana(), "CreateFunction", params)
        again = Door()
        again.api.allowed |= {("ana", "create", "functions", ""), ("ana", "use", "serviceaccounts", "kappa-orders")}
        await again.permissions.check_operation(ana(), "CreateFunction", params)
        assert again.api.asked == ["ana create functions default", "ana use serviceaccounts default kappa-orders"]

    asyncio.run(scenario())


def test_callers_without_a_subject_are_not_asked_about() -> None:
    async def scenario() -> None:
        door = Door()
        owner = Identity(account=ACCOUNT, region="us-east-1", access_key_id="AKIA1")
        await door.permissions.check_operation(owner, "DeleteFunction", {"FunctionName": "hello"})
        assert door.permissions.known(owner, permissions.INVOKE, "hello")
        assert door.api.asked == []

    asyncio.run(scenario())


def test_who_can_wait_is_told_who_calls() -> None:
    async def scenario() -> None:
        door = Door()
        door.api.user("t", "ana")
        scope = request(token="t")
        sent = SignedRequest(method="GET", raw_path=b"/", query_string=b"", headers=scope["headers"], body=b"")
        with pytest.raises(Undecided):
            door.authenticator.identify(sent, now=NOW)
        found = await identified(door.authenticator, sent, now=NOW)
        assert found.subject is not None
        assert found.subject.username == "ana"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param(INVOKE_HELLO, "hello", id="plain"),
        pytest.param(f"{INVOKE_HELLO}/", "hello", id="slash at the end"),
        pytest.param("/2021-11-15/functions/hello/response-streaming-invocations", "hello", id="streamed"),
        pytest.param("/2015-03-31/functions/a%3Ab/invocations", "a:b", id="encoded"),
        pytest.param("/elsewhere", "", id="another path"),
    ],
)
def test_the_function_that_a_path_names(path: str, name: str) -> None:
    assert invoked(request(path)) == name


def test_headers_that_no_client_sends_are_refused_and_nothing_else() -> None:
    """Whatever an Authorization header holds ends in an error of the API."""

    async def scenario() -> None:
        door = Door()
        for value in ("Bearer", "Bearer ", "bearer \x00", "Basic abc", "AWS4-HMAC-SHA256", "Bearer " + "é" * 10):
            with pytest.raises(LambdaError):
                await door.admitted(request(authorization=value))

    asyncio.run(scenario())


def key_secret(account: str, *, review_as: str = "") -> dict[str, Any]:
    data = {"aws_access_key_id": "AKIA1", "aws_secret_access_key": "s1"}
    annotations = {"lambda.kappa.dev/account-id": account} | ({"lambda.kappa.dev/review-as": review_as} if review_as else {})
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    return {"metadata": {"name": "one", "annotations": annotations}, "data": encoded}
