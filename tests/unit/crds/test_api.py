"""KubernetesApi against a server that answers what the test says: errors, retries, paging and watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from kappa_crds.api import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    FieldOwner,
    Forbidden,
    Invalid,
    KubernetesApi,
    NotFound,
    Object,
    TooManyRequests,
    Unavailable,
    api_path,
)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
PATH = "/api/v1/namespaces/n/configmaps"


class Server:
    """Answers with what is in ``answers``, in order."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str, dict[str, str], str]] = []
        self.slept: list[float] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        content_type = request.headers.get("Content-Type", "")
        self.requests.append((request.method, request.path, dict(request.query), content_type))
        return await self.answers.pop(0)(request)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def status(code: int, reason: str, *, headers: dict[str, str] | None = None, **details: Any) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "code": code, "reason": reason, "message": f"{reason} it is", "details": details}
        return web.json_response(body, status=code, headers=headers)

    return answer


def ok(body: Object) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(body)

    return answer


def events(*lines: object, lose: bool = False) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            with contextlib.suppress(ConnectionError):  # a client that has read enough
                await response.write(json.dumps(line).encode() + b"\n")
        if lose:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Server, KubernetesApi]]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
        api = KubernetesApi(configuration, sleep=server.sleep)
        try:
            yield server, api
        finally:
            await api.close()
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", Invalid),
        (401, "Unauthorized", Forbidden),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (410, "Gone", Expired),
        (422, "Invalid", Invalid),
        (500, "InternalError", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
    ],
)
def test_every_status_is_one_error_with_the_servers_words(code: int, reason: str, expected: type[ApiError]) -> None:
    async def scenario() -> None:
        async with served() as (server, api):
            server.answers = [status(code, reason, name="x")]
            with pytest.raises(expected, match=f"{reason} it is") as caught:
                await api.get(PATH)
            assert type(caught.value) is expected
            assert (caught.value.status, caught.value.reason, caught.value.details["name"]) == (code, reason, "x")

    asyncio.run(scenario())


def test_a_conflict_names_who_owns_which_field() -> None:
    async def scenario() -> None:
        causes = [
            {"reason": "FieldManagerConflict", "message": 'conflict with "argocd" using v1', "field": ".spec.timeout"},
            {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl"', "field": ".spec.tags.a"},
        ]
        async with served() as (server, api):
            server.answers = [status(409, "Conflict", causes=causes), status(409, "Conflict")]
            with pytest.raises(Conflict) as caught:
                await api.apply(PATH, {}, field_manager="kappa-api")
            assert caught.value.owners == (FieldOwner("argocd", ".spec.timeout"), FieldOwner("kubectl", ".spec.tags.a"))
            with pytest.raises(Conflict) as caught:
                await api.replace(PATH, {}, field_manager="kappa-api")
            assert caught.value.owners == ()

    asyncio.run(scenario())


def test_who_follows_metadata_alone_asks_for_nothing_else() -> None:
    accepted: list[str] = []

    def noting(answer: Answer) -> Answer:
        async def noted(request: web.Request) -> web.StreamResponse:
            accepted.append(request.headers["Accept"])
            return await answer(request)

        return noted

    async def scenario() -> None:
        async with served() as (server, api):
            listed, event = {"items": [], "metadata": {"resourceVersion": "7"}}, {"type": "BOOKMARK", "object": {}}
            server.answers = [noting(ok(listed)), noting(events(event)), noting(ok(listed))]
            metadata = api.only_metadata()
            assert await metadata.list(PATH) == ([], "7")
            async with aclosing(metadata.watch(PATH, resource_version="7")) as watch:
                assert await anext(watch) == event
            await api.list(PATH)

    asyncio.run(scenario())
    assert accepted == [
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        "application/json",
    ]


def test_a_throttled_request_is_repeated_after_the_time_that_is_asked_for_and_not_for_ever() -> None:
    async def scenario() -> None:
        async with served() as (server, api):
            busy = status(429, "TooManyRequests", headers={"Retry-After": "2"})
            server.answers = [busy, status(429, "TooManyRequests", retryAfterSeconds=90), ok({"kind": "ConfigMap"})]
            assert await api.create(PATH, {}, field_manager="kappa-api") == {"kind": "ConfigMap"}
            assert server.slept == [2.0, 5.0]
            server.answers = [busy] * 9
            with pytest.raises(TooManyRequests) as caught:
                await api.get(PATH)
            assert (caught.value.retry_after, len(server.answers)) == (2.0, 5)

    asyncio.run(scenario())


def test_no_write_is_repeated_that_may_have_happened() -> None:
    async def lost(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def scenario() -> None:
        async with served() as (server, api):
            server.answers = [lost, status(500, "InternalError")]
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await api.apply(PATH, {}, field_manager="kappa-api")
            assert len(server.requests) == 2

    asyncio.run(scenario())


def test_a_proxy_that_answers_html_is_no_api() -> None:
    async def html(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>", status=200)

    async def bad_gateway(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>bad gateway", status=502)

    async def scenario() -> None:
        async with served() as (server, api):
            server.answers = [html, bad_gateway]
            with pytest.raises(Unavailable, match="something else than JSON"):
                await api.get(PATH)
            with pytest.raises(Unavailable, match="bad gateway"):
                await api.get(PATH)

    asyncio.run(scenario())


def test_a_list_joins_its_pages_and_begins_again_without_them_when_the_continuation_expires() -> None:
    def page(names: str, *, more: str = "") -> Answer:
        metadata = {"resourceVersion": "7"} | ({"continue": more} if more else {})
        return ok({"items": [{"metadata": {"name": name}} for name in names], "metadata": metadata})

    async def scenario() -> None:
        async with served() as (server, api):
            server.answers = [page("ab", more="c1"), page("c")]
            items, version = await api.list(PATH, label_selector="a=b", field_selector="spec.x=y", limit=2)
            assert ([item["metadata"]["name"] for item in items], version) == (["a", "b", "c"], "7")
            selectors = {"labelSelector": "a=b", "fieldSelector": "spec.x=y"}
            assert [query for _, _, query, _ in server.requests] == [
                {**selectors, "limit": "2"},
                {**selectors, "limit": "2", "continue": "c1"},
            ]
            server.requests.clear()
            server.answers = [page("ab", more="c1"), status(410, "Expired"), page("abcd")]
            items, _ = await api.list(PATH, limit=2)
            assert [item["metadata"]["name"] for item in items] == ["a", "b", "c", "d"]
            assert server.requests[-1][2] == {}

    asyncio.run(scenario())


def test_a_watch_yields_events_until_the_server_ends_it() -> None:
    async def scenario() -> None:
        told = [{"type": "ADDED", "object": {"x": "ü" * 500_000}}, {"type": "BOOKMARK", "object": {}}]
        async with served() as (server, api):
            server.answers = [events(*told)]
            assert [event async for event in api.watch(PATH, resource_version="5", timeout_seconds=9)] == told
            query = server.requests[0][2]
            assert query == {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "5", "timeoutSeconds": "9"}

    asyncio.run(scenario())


@pytest.mark.parametrize("answer", [status(410, "Gone"), events({"type": "ERROR", "object": {"code": 410, "message": "old"}})])
def test_a_watch_behind_a_version_that_is_compacted_says_expired(answer: Answer) -> None:
    async def scenario() -> None:
        async with served() as (server, api):
            server.answers = [answer]
            async with aclosing(api.watch(PATH, resource_version="1")) as watch:
                with pytest.raises(Expired):
                    await anext(watch)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        events({"type": "ADDED", "object": {}}, lose=True),
        events({"type": "ADDED", "object": {"x": "x" * 5_000_000}}),
        events({"type": "ERROR", "object": {"code": 500, "message": "etcd is away"}}),
    ],
)
def test_a_watch_that_breaks_says_unavailable(answer: Answer) -> None:
    async def scenario() -> None:
        async with served() as (server, api):
            server.answers = [answer]
            with pytest.raises(Unavailable):
                await drained(api.watch(PATH, resource_version="1"))

    asyncio.run(scenario())


async def drained(watch: AsyncGenerator[Object, None]) -> list[Object]:
    return [event async for event in watch]


def test_writes_are_what_the_api_server_takes_them_for() -> None:
    async def scenario() -> None:
        async with served() as (server, api):
            server.answers = [ok({})] * 6
            await api.apply(PATH, {}, field_manager="m", force=True)
            await api.merge_patch(PATH, {}, field_manager="m")
            await api.json_patch(PATH, [], field_manager="m")
            await api.replace(PATH, {}, field_manager="m")
            await api.create(PATH, {}, field_manager="m")
            await api.post(PATH, {})
            assert [(method, query, content) for method, _, query, content in server.requests] == [
                ("PATCH", {"fieldManager": "m", "force": "true"}, "application/apply-patch+yaml"),
                ("PATCH", {"fieldManager": "m"}, "application/merge-patch+json"),
                ("PATCH", {"fieldManager": "m"}, "application/json-patch+json"),
                ("PUT", {"fieldManager": "m"}, "application/json"),
                ("POST", {"fieldManager": "m"}, "application/json"),
                ("POST", {}, "application/json"),
            ]

    asyncio.run(scenario())


def test_a_deletion_carries_its_preconditions() -> None:
    bodies: list[Object] = []

    async def record(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return web.json_response({})

    async def scenario() -> None:
        async with served() as (server, api):
            server.answers = [record, record]
            await api.delete(PATH, uid="u", resource_version="3", propagation="Foreground")
            await api.delete(PATH)

    asyncio.run(scenario())
    assert bodies[0]["preconditions"] == {"uid": "u", "resourceVersion": "3"}
    assert bodies[0]["propagationPolicy"] == "Foreground"
    assert bodies[1] == {"kind": "DeleteOptions", "apiVersion": "v1"}


def test_tokens_are_asked_for_with_each_request() -> None:
    given: list[str] = []

    async def record(request: web.Request) -> web.StreamResponse:
        given.append(request.headers["Authorization"])
        return web.json_response({})

    async def scenario() -> None:
        async with served() as (server, api):
            tokens = iter(["first", "second"])

            def refresh(configuration: Configuration) -> None:
                configuration.api_key["BearerToken"] = f"Bearer {next(tokens)}"

            api._configuration.api_key["BearerToken"] = "Bearer none"
            api._configuration.refresh_api_key_hook = refresh  # type: ignore[assignment]
            server.answers = [record, record]
            await api.get(PATH)
            await api.get(PATH)

    asyncio.run(scenario())
    assert given == ["Bearer first", "Bearer second"]


def test_without_a_cluster_connecting_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Unavailable, match="no Kubernetes cluster is configured") as caught:
        asyncio.run(KubernetesApi.connect(kubeconfig=tmp_path / "missing"))
    assert "\n" not in str(caught.value)


def test_a_closed_client_is_unavailable() -> None:
    async def scenario() -> None:
        async with served() as (_, api):
            await api.close()
            with pytest.raises(Unavailable, match="is closed"):
                await api.get(PATH)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("arguments", "named", "path"),
    [
        (("v1", "namespaces"), {}, "/api/v1/namespaces"),
        (("v1", "namespaces"), {"name": "a"}, "/api/v1/namespaces/a"),
        (("apps/v1", "deployments"), {"namespace": "n"}, "/apis/apps/v1/namespaces/n/deployments"),
        (
            ("apps/v1", "deployments"),
            {"namespace": "n", "name": "d", "subresource": "scale"},
            "/apis/apps/v1/namespaces/n/deployments/d/scale",
        ),
        (("v1", "secrets"), {"namespace": "n", "name": "../x?y"}, "/api/v1/namespaces/n/secrets/..%2Fx%3Fy"),
    ],
)
def test_paths(arguments: tuple[str, str], named: dict[str, str], path: str) -> None:
    assert api_path(*arguments, **named) == path
