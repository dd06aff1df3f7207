"""A small client of a running gateway for the ``kappa`` command: standard library only, so that it starts at once.

It signs requests where AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set, with the gateway's own signer, and sends them unsigned
otherwise. It is no SDK: what it does not offer, boto3 and the AWS CLI do.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from kappa_gateway.auth.signing import sign

_SINCE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_FOLLOW_ATTEMPTS = 3
_FOLLOW_SECONDS = 1.0
"""Between the attempts to go on following when a gateway has ended its answer."""
_REMEMBERED = 1000
"""Events that a follower knows again where its next answer begins a little earlier than the last one ended."""
_OVERLAP_MS = 2000
_LOGS_MISSING = "x-kappa-logs-missing"  # as in kappa_gateway.native, which would bring the web framework

_Answer = tuple[http.client.HTTPConnection, http.client.HTTPResponse]


class ClientError(Exception):
    """The gateway refused or cannot be reached; the message is one line."""


class Invocation(NamedTuple):
    payload: bytes
    log: str
    function_error: str | None


class Client:
    """Talks to one endpoint. Each call is a connection of its own."""

    def __init__(self, endpoint_url: str) -> None:
        parts = urlsplit(endpoint_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError(f"{endpoint_url!r} is no http address")
        self._url = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"
        self._netloc = parts.netloc

    def functions(self) -> list[dict[str, Any]]:
        """All functions, as ListFunctions describes them."""
        found: list[dict[str, Any]] = []
        marker = None
        while True:
            page = json.loads(self._call("GET", "/2015-03-31/functions", {"Marker": marker} if marker else {})[1])
            found += page["Functions"]
            marker = page.get("NextMarker")
            if not marker:
                return found

    def invoke(self, function: str, event: bytes, *, qualifier: str | None) -> Invocation:
        """A synchronous invocation with its log tail."""
        path = f"/2015-03-31/functions/{quote(function, safe='')}/invocations"
        query = {"Qualifier": qualifier} if qualifier else {}
        headers, payload = self._call("POST", path, query, body=event, headers={"X-Amz-Log-Type": "Tail"})
        tail = base64.b64decode(headers.get("x-amz-log-result", "")).decode("utf-8", "replace")
        return Invocation(payload, tail, headers.get("x-amz-function-error"))

    def logs(
        self,
        function: str,
        *,
        follow: bool,
        since: str,
        request_id: str | None,
        warn: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[str]:
        """Messages of a function's log group in order of arrival. ``follow`` goes on without an end, at another gateway when one leaves,
        until none answers. ``warn`` is told, in one line, what is missing."""
        matched = _SINCE.fullmatch(since)
        if matched is None:
            raise ClientError(f"--since {since!r} is no time: say 30s, 10m, 2h or 1d")
        start = max(0, int((time.time() - float(matched[1]) * _UNITS[matched[2]]) * 1000))
        query = {"start": str(start), "follow": "1" if follow else "0"} | ({"request_id": request_id} if request_id else {})
        path = f"/_kappa/logs/{quote(function, safe='')}"
        last: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)
        answer: _Answer | None = self._open("GET", path, query)
        while answer is not None:
            known = {event["event_id"] for event in last}
            for event in _log_events(*answer, warn=warn, whole=not follow):
                if event["event_id"] not in known:
                    last.append(event)
                    message = event["message"]
                    yield message if message.endswith("\n") else message + "\n"
            if last:  # around a change of gateways, lines may be a little out of order
                query["start"] = str(max(start, last[-1]["timestamp_ms"] - _OVERLAP_MS))
            answer = self._again(path, query, sleep=sleep) if follow else None

    def _again(self, path: str, query: dict[str, str], *, sleep: Callable[[float], None]) -> _Answer | None:
        """The next answer of a follower; None when nobody gives one."""
        for _ in range(_FOLLOW_ATTEMPTS):
            sleep(_FOLLOW_SECONDS)
            with contextlib.suppress(ClientError):
                return self._open("GET", path, query)
        return None

    def ask(self, method: str, path: str, query: dict[str, str]) -> Any:
        """One of Kappa's own routes that answer JSON."""
        return json.loads(self._call(method, path, query)[1])

    def _call(
        self, method: str, path: str, query: dict[str, str], *, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[dict[str, str], bytes]:
        connection, response = self._open(method, path, query, body=body, headers=headers)
        try:
            return {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def _open(
        self, method: str, path: str, query: dict[str, str], *, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> _Answer:
        target = path + ("?" + urlencode(sorted(query.items()), quote_via=quote) if query else "")
        sent = {"Host": self._netloc, **(headers or {})}
        key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if key and secret:
            sent |= sign(
                method=method,
                target=target,
                headers=sent,
                body=body,
                access_key_id=key,
                secret=secret,
                session_token=os.environ.get("AWS_SESSION_TOKEN"),
                region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
                now=time.time(),
            )
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._netloc, timeout=None)
        try:
            connection.request(method, target, body=body or None, headers=sent)
            response = connection.getresponse()
        except OSError as error:
            connection.close()
            raise ClientError(f"no gateway answers at {self._url} ({error}); start one with: kappa dev") from None
        if response.status >= 400:
            raw = response.read()
            code = (response.getheader("x-amzn-errortype") or str(response.status)).split(":")[0]
            connection.close()
            try:
                decoded = json.loads(raw)
                text = decoded.get("message") or decoded.get("Message")
            except (ValueError, AttributeError):
                text = raw.decode("utf-8", "replace")[:200]
            raise ClientError(f"{code}: {text}")
        return connection, response


def _log_events(
    connection: http.client.HTTPConnection,
    response: http.client.HTTPResponse,
    *,
    warn: Callable[[str], None],
    whole: bool,
) -> Iterator[dict[str, Any]]:
    """The events of one answer. Where it breaks off: a ClientError where it should be ``whole``, else just its end."""
    missing = response.getheader(_LOGS_MISSING)
    if missing:
        warn(f"the lines of gateways that do not answer are missing: {missing}")
    try:
        while line := response.readline():
            yield json.loads(line)
    except (OSError, http.client.HTTPException) as error:
        if whole:
            raise ClientError(f"the gateway broke off: {error}") from None
    finally:
        connection.close()
