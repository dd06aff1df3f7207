"""The Kubernetes API as plain dictionaries: what the gateway, the operator and the command line read and write objects with.

Where the cluster is and how to authenticate comes from ``kubernetes.aio``; requests and answers stay raw JSON, because typed models
cost ten times the CPU of the request itself. Every call has a timeout and ends in its answer or in one error of this tree:

    ApiError
    ├── NotFound            404
    ├── AlreadyExists       409, from create
    ├── Conflict            409: another resourceVersion, or fields that other managers own (``owners``)
    ├── Forbidden           401, 403
    ├── Invalid             400, 413, 415, 422: the API server will not take this object, now or later
    ├── TooManyRequests     429, after bounded retries
    ├── Expired             410: the resourceVersion or the continuation is compacted; list again
    └── Unavailable         5xx, timeouts, refused or lost connections: a write may or may not have happened

It refuses to guess: apart from 429, which says that nothing was done, no write is ever repeated here. Watching with resumption is
:mod:`kappa_crds.watching`.
"""

from __future__ import annotations

import asyncio
import builtins
import copy
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple, Protocol, Self, cast
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from kappa_crds.encoding import encode_body

Object = dict[str, Any]
"""An object of the API, as its JSON has it."""
Propagation = Literal["Background", "Foreground", "Orphan"]

REQUEST_SECONDS: Final = 30.0
"""For any request but a watch, a page of a list included."""
CONNECT_SECONDS: Final = 5.0
_METADATA: Final = "g=meta.k8s.io;v=v1"
"""kubernetes.io/docs/reference/using-api/api-concepts, "Metadata-only fetches"."""
_THROTTLED_ATTEMPTS: Final = 4
_RETRY_AFTER_SECONDS: Final = 5.0
"""Longest wait that a 429 can ask for."""
_REQUEST_TIMEOUT: Final = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
_CONNECTION_ERRORS: Final = (aiohttp.ClientError, HttpProcessingError, OSError)
"""A TimeoutError is an OSError; a line of a watch that is too long is an HttpProcessingError."""
_CONNECTIONS: Final = 256
_WATCH_GRACE_SECONDS: Final = 30.0
"""After the time at which the API server should have ended a watch."""
_EVENT_BYTES: Final = 2**21
"""Read buffer; a line of a watch may have twice as many bytes, and an object has at most 1.5 MiB."""


class FieldOwner(NamedTuple):
    """Who holds a field that an apply without force wanted to change."""

    manager: str
    """As in ``managedFields``: ``kubectl-client-side-apply``, ``argocd-controller``…"""
    field: str
    """Path of the field, such as ``.spec.timeout``."""


class ApiError(Exception):
    """Base of all errors; ``status`` is 0 where there was no answer."""

    default_status: ClassVar[int] = 0

    def __init__(self, message: str, *, status: int | None = None, reason: str = "", details: Object | None = None) -> None:
        super().__init__(message)
        self.status = self.default_status if status is None else status
        self.reason = reason
        """Such as ``NotFound``, as in ``metav1.Status``."""
        self.message = message
        self.details: Object = details or {}
        """``details`` of the Status: kind, name, causes, retryAfterSeconds."""


class NotFound(ApiError):
    default_status = 404


class AlreadyExists(ApiError):
    default_status = 409


class Conflict(ApiError):
    default_status = 409

    @property
    def owners(self) -> tuple[FieldOwner, ...]:
        """Of fields that other managers own; empty where the resourceVersion or another precondition failed."""
        return tuple(
            FieldOwner(_manager(cause.get("message", "")), cause.get("field", ""))
            for cause in self.details.get("causes") or ()
            if cause.get("reason") == "FieldManagerConflict"
        )


class Forbidden(ApiError):
    default_status = 403


class Invalid(ApiError):
    default_status = 422


class TooManyRequests(ApiError):
    default_status = 429

    @property
    def retry_after(self) -> float:
        """Seconds that the API server asks to wait."""
        return float(self.details.get("retryAfterSeconds") or 1)


class Expired(ApiError):
    default_status = 410


class Unavailable(ApiError):
    default_status = 503


def api_path(api_version: str, plural: str, /, *, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The path of an object or, without ``name``, of a collection: ``api_path("apps/v1", "deployments", namespace="a", name="b",
    subresource="scale")``. Without ``namespace`` all namespaces, or what is in none."""
    parts = ["/api" if "/" not in api_version else "/apis", api_version]
    if namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(plural)
    parts += [quote(part, safe="") for part in (name, subresource) if part]
    return "/".join(parts)


class WatchedApi(Protocol):
    """What :mod:`kappa_crds.watching` needs of the API; its in-memory twin has the same."""

    async def list(
        self, path: str, *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> tuple[builtins.list[Object], str]: ...

    def watch(
        self,
        path: str,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[Object, None]: ...


class KubernetesApi:
    """One API server with one identity. Use :meth:`connect`; belongs to the event loop it was made on."""

    def __init__(self, configuration: Configuration, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._configuration = configuration
        self._sleep = sleep
        self._accept = self._accept_list = "application/json"
        self._host = str(configuration.host).rstrip("/")
        tls: ssl.SSLContext = RESTClientObject(configuration).ssl_context
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=_CONNECTIONS),
            headers={"User-Agent": "kappa"},
            read_bufsize=_EVENT_BYTES,
        )

    @classmethod
    async def connect(cls, *, kubeconfig: Path | None = None) -> Self:
        """The cluster that this pod runs in, else the current context of ``kubeconfig``, ``KUBECONFIG`` or ``~/.kube/config``.

        In a pod the ServiceAccount's token is read again as it rotates. Nothing is sent yet.
        Raises Unavailable with one line where no cluster is configured.
        """
        configuration = Configuration()
        try:
            if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                file = None if kubeconfig is None else str(kubeconfig)
                await load_kube_config(config_file=file, client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            raise Unavailable(f"no Kubernetes cluster is configured: {error}") from error
        # Python 3.13 refuses authorities without a key usage extension, which clusters have that every other client talks to
        # (kubernetes-client/python#2394).
        configuration.disable_strict_ssl_verification = True
        return cls(configuration)

    async def close(self) -> None:
        """End all connections, watches included. Idempotent."""
        await self._session.close()

    def only_metadata(self) -> WatchedApi:
        """The same API server on the same connections, answering with the metadata of objects alone (PartialObjectMetadata): for
        who follows which objects there are, in which version, and has no business with what they say."""
        view = copy.copy(self)
        view._accept = f"application/json;as=PartialObjectMetadata;{_METADATA}"
        view._accept_list = f"application/json;as=PartialObjectMetadataList;{_METADATA}"
        return view

    # -- reads ---------------------------------------------------------------------------------------------------------
    async def get(self, path: str, *, query: Mapping[str, str] | None = None) -> Object:
        """A consistent read: what every acknowledged write has left."""
        return await self._request("GET", path, query=query)

    async def list(
        self, path: str, *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> tuple[builtins.list[Object], str]:
        """All objects of a collection as of one resourceVersion, read in pages of ``limit``, and that resourceVersion.

        A continuation that expires before the last page begins the list again, without pages.
        Items carry neither kind nor apiVersion.
        """
        selectors = _selectors(label_selector, field_selector)
        items: builtins.list[Object] = []
        query = {**selectors, "limit": str(limit)}
        while True:
            try:
                page = await self._request("GET", path, query=query, accept=self._accept_list)
            except Expired:
                if "continue" not in query and "limit" not in query:
                    raise
                items, query = [], dict(selectors)
                continue
            items += page.get("items") or ()
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return items, metadata["resourceVersion"]
            query = {**selectors, "limit": str(limit), "continue": metadata["continue"]}

    async def watch(
        self,
        path: str,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[Object, None]:
        """Events (``type``, ``object``) behind ``resource_version``, bookmarks among them, until the API server ends the watch.

        Close the generator to end it earlier. Raises Expired where the version is compacted, Unavailable where the connection is lost.
        """
        query = {
            **_selectors(label_selector, field_selector),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=timeout_seconds + _WATCH_GRACE_SECONDS
        )
        response = await self._send("GET", path, query=query, timeout=timeout)
        try:
            if response.status >= 400:
                raise _error(response.status, await _read(response, self._host))
            while line := await _next_line(response, self._host):
                event = _decode(line)  # the last line of a connection that was cut is no JSON
                if event["type"] == "ERROR":
                    raise _error(int(event["object"].get("code") or 500), line, event["object"])
                yield event
        finally:
            response.close()

    # -- writes --------------------------------------------------------------------------------------------------------
    async def create(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        """POST to a collection. Raises AlreadyExists."""
        return await self._request("POST", path, query={"fieldManager": field_manager}, body=body)

    async def post(self, path: str, body: Object, /) -> Object:
        """POST of what is answered, not stored: reviews and subresources such as ``token``."""
        return await self._request("POST", path, body=body)

    async def apply(self, path: str, body: Object, /, *, field_manager: str, force: bool = False) -> Object:
        """Server-side apply: create, or set the fields in ``body`` and remove those that only this manager had set before.

        Raises Conflict, with ``owners`` where another manager owns a field that would change and ``force`` is not set.
        """
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        return await self._request("PATCH", path, query=query, body=body, content_type="application/apply-patch+yaml")

    async def merge_patch(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        """JSON merge patch; ``metadata.resourceVersion`` in it is a precondition."""
        query = {"fieldManager": field_manager}
        return await self._request("PATCH", path, query=query, body=body, content_type="application/merge-patch+json")

    async def json_patch(self, path: str, operations: builtins.list[Object], /, *, field_manager: str) -> Object:
        """RFC 6902; a ``test`` that fails raises Invalid."""
        query = {"fieldManager": field_manager}
        return await self._request("PATCH", path, query=query, body=operations, content_type="application/json-patch+json")

    async def replace(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        """PUT. Raises Conflict where ``metadata.resourceVersion`` is given and not current."""
        return await self._request("PUT", path, query={"fieldManager": field_manager}, body=body)

    async def delete(
        self, path: str, *, uid: str | None = None, resource_version: str | None = None, propagation: Propagation | None = None
    ) -> Object:
        """Delete one object and return the answer: its last state, or a Status. Raises NotFound, and Conflict where it is another
        object or another version than named."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if uid is not None or resource_version is not None:
            body["preconditions"] = {name: value for name, value in preconditions.items() if value is not None}
        if propagation is not None:
            body["propagationPolicy"] = propagation
        return await self._request("DELETE", path, body=body)

    # -- one request ---------------------------------------------------------------------------------------------------
    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | builtins.list[Object] | None = None,
        content_type: str = "application/json",
        accept: str | None = None,
    ) -> Object:
        for attempt in range(1, _THROTTLED_ATTEMPTS + 1):
            response = await self._send(method, path, query=query, body=body, content_type=content_type, accept=accept)
            async with response:
                data = await _read(response, self._host)
                if response.status < 400:
                    return _decode(data)
                error = _error(response.status, data, headers=response.headers)
            if not isinstance(error, TooManyRequests) or attempt == _THROTTLED_ATTEMPTS:
                raise error
            await self._sleep(min(error.retry_after, _RETRY_AFTER_SECONDS))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | builtins.list[Object] | None = None,
        content_type: str = "application/json",
        accept: str | None = None,
        timeout: aiohttp.ClientTimeout = _REQUEST_TIMEOUT,  # noqa: ASYNC109 - aiohttp's own, not a cancel scope
    ) -> aiohttp.ClientResponse:
        headers = await self._authorization() | {"Accept": accept or self._accept}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            return await self._session.request(
                method,
                self._host + path,
                params=query,
                data=None if body is None else encode_body(body),
                headers=headers,
                proxy=self._configuration.proxy,
                server_hostname=self._configuration.tls_server_name,
                timeout=timeout,
            )
        except _CONNECTION_ERRORS as error:
            raise _unreachable(self._host, error) from error
        except RuntimeError as error:  # aiohttp's word for a session that has been closed
            raise Unavailable(f"the connection to {self._host} is closed") from error

    async def _authorization(self) -> dict[str, str]:
        """Asked for each request, because tokens rotate."""
        settings = cast(Mapping[str, Mapping[str, str]], await self._configuration.auth_settings())
        return {scheme["key"]: scheme["value"] for scheme in settings.values() if scheme["value"]}


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in selectors.items() if value}


async def _read(response: aiohttp.ClientResponse, host: str) -> bytes:
    try:
        return await response.read()
    except _CONNECTION_ERRORS as error:
        raise _unreachable(host, error) from error


async def _next_line(response: aiohttp.ClientResponse, host: str) -> bytes:
    try:
        return await response.content.readline()
    except _CONNECTION_ERRORS as error:
        raise _unreachable(host, error) from error


def _decode(data: bytes) -> Object:
    try:
        return cast(Object, msgspec.json.decode(data))
    except msgspec.DecodeError as error:
        raise Unavailable(f"the API server answered something else than JSON: {data[:100]!r}") from error


def _unreachable(host: str, error: Exception) -> Unavailable:
    return Unavailable(f"the Kubernetes API at {host} cannot be reached: {str(error) or type(error).__name__}")


def _error(code: int, data: bytes, status: Object | None = None, *, headers: Mapping[str, str] | None = None) -> ApiError:
    """The error in an answer, which is a ``metav1.Status`` unless a proxy made it."""
    if status is None:
        try:
            status = msgspec.json.decode(data, type=Object)
        except (msgspec.DecodeError, msgspec.ValidationError):
            status = {}
    reason = status.get("reason") or ""
    message = status.get("message") or data[:200].decode("utf-8", "replace") or f"HTTP status {code}"
    details: Object = dict(status.get("details") or {})
    after = (headers or {}).get("Retry-After", "")
    if after.isascii() and after.isdigit():
        details.setdefault("retryAfterSeconds", int(after))
    return _class_of(code, reason)(message, status=code, reason=reason, details=details)


def _class_of(code: int, reason: str) -> type[ApiError]:
    match code:
        case 401 | 403:
            return Forbidden
        case 404:
            return NotFound
        case 409:
            return AlreadyExists if reason == "AlreadyExists" else Conflict
        case 410:
            return Expired
        case 400 | 413 | 415 | 422:
            return Invalid
        case 429:
            return TooManyRequests
        case _:
            return Unavailable if code >= 500 else ApiError


def _manager(message: str) -> str:
    """From ``conflict with "name" using apps/v1`` (apimachinery, managedfields/internal/conflict.go)."""
    quoted = message.split('"')
    return quoted[1] if len(quoted) > 2 else message
