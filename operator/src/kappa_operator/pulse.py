"""Proof that watches live: when something was last heard on each, be it an event or a bookmark.

kopf tells its handlers of events only, and of nothing when it has to list again because what it knew had expired; objects that were
deleted in between would stay for ever in a memory that is fed by events. Both can be seen on the wire, so kopf is given an HTTP
session of its own (its documented way) that listens: every piece of a watch's answer is a sign of life, and every list after the
first one is told. The session also reads the ServiceAccount's token anew for each request, as it rotates.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple, cast

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_incluster_config, load_kube_config


class Pulse:
    """Signs of life by path of collection."""

    def __init__(self, paths: Iterable[str], *, listed_again: Callable[[str], None]) -> None:
        began = asyncio.get_running_loop().time()
        self._heard = dict.fromkeys(paths, began)
        self._listed: set[str] = set()
        self._listed_again = listed_again
        self.complete = asyncio.Event()
        """Every collection has been listed once."""

    def hear(self, path: str) -> None:
        """Something came on the watch of this collection."""
        if path in self._heard:
            self._heard[path] = asyncio.get_running_loop().time()

    def list(self, path: str) -> None:
        """The collection has been listed, which every watch begins with."""
        self.hear(path)
        if path in self._listed:
            self._listed_again(path)
        elif path in self._heard:
            self._listed.add(path)
            if len(self._listed) == len(self._heard):
                self.complete.set()

    def begin(self) -> None:
        """Silence counts from now."""
        self._heard = dict.fromkeys(self._heard, asyncio.get_running_loop().time())

    def silence(self) -> dict[str, float]:
        """Seconds since something was heard, by path."""
        now = asyncio.get_running_loop().time()
        return {path: now - heard for path, heard in self._heard.items()}


class WatchSession(NamedTuple):
    server: str
    http: aiohttp.ClientSession


async def watch_session(pulse: Pulse) -> WatchSession:
    """An HTTP session with the API server for kopf's lists and watches. Raises ConfigException where there is no cluster."""
    configuration = Configuration()
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]

    async def listen(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        settings = cast(dict[str, dict[str, str]], await configuration.auth_settings())
        for scheme in settings.values():
            if scheme["in"] == "header" and scheme["value"]:
                request.headers[scheme["key"]] = scheme["value"]
        response: aiohttp.ClientResponse = await handler(request)
        if request.method == "GET" and response.status == 200:
            path = request.url.path
            if "watch" in request.url.query:
                response.content = _Heard(response.content, lambda: pulse.hear(path))  # type: ignore[assignment]  # stands in
            elif "continue" not in request.url.query:
                pulse.list(path)
        return response

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=RESTClientObject(configuration).ssl_context, limit=0),
        headers={"User-Agent": "kappa-operator"},
        middlewares=(listen,),
    )
    return WatchSession(str(configuration.host).rstrip("/"), session)


class _Heard:
    """A response's content that says whenever something came."""

    def __init__(self, content: aiohttp.StreamReader, hear: Callable[[], None]) -> None:
        self._content = content
        self._hear = hear

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        async for data in self._content.iter_chunked(size):
            self._hear()
            yield data
