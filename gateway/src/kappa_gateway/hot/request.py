"""What a request to invoke says, read from its ASGI scope: path, headers and body, each checked as AWS checks it.

Invoke and InvokeWithResponseStream differ in their path and in the types of invocation they take: :class:`HotOperation`. Pure but for
:func:`read_body`. Nothing here knows functions or environments; :mod:`kappa_gateway.hot.path` does.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import parse_qs, unquote

import msgspec

from kappa_core.errors import InvalidRequestContentException, RequestEntityTooLargeException, ValidationException

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
InvocationType = Literal["RequestResponse", "Event", "DryRun"]

_LOG_TYPES: Final = ("None", "Tail")
CLIENT_CONTEXT_BYTES: Final = 3583  # docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
_validate_json: Final = msgspec.json.Decoder(msgspec.Raw).decode


class ClientDisconnected(Exception):
    """The client went away before its request was complete; nobody is left to answer."""


class HotOperation(msgspec.Struct, frozen=True):
    """An operation of the hot path."""

    name: str
    """As RequestEntityTooLargeException calls it, which is not always the model's name."""
    prefix: str
    suffix: str
    """What stands in the path before and after the function's name."""
    types: tuple[InvocationType, ...]

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is for this operation. ``path`` is the decoded one; the test is exact enough to route by."""
        return method == "POST" and path.startswith(self.prefix) and path.rstrip("/").endswith(self.suffix)


INVOKE: Final = HotOperation("InvokeFunction", "/2015-03-31/functions/", "/invocations", ("Event", "RequestResponse", "DryRun"))
INVOKE_WITH_RESPONSE_STREAM: Final = HotOperation(
    "InvokeWithResponseStream", "/2021-11-15/functions/", "/response-streaming-invocations", ("RequestResponse", "DryRun")
)


class InvokeRequest(msgspec.Struct, frozen=True):
    name: str
    """As in the path, decoded once: a name or any form of ARN."""
    qualifier: str | None
    invocation_type: InvocationType
    tail: bool
    client_context: str
    """Decoded JSON, or empty."""
    trace_id: str
    """As received, or made here."""
    tenant_id: str


def parse(scope: Mapping[str, Any], headers: Mapping[bytes, bytes], *, operation: HotOperation = INVOKE) -> InvokeRequest:
    """Read path, query and headers. Raises ValidationException and InvalidRequestContentException in AWS's words."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("latin-1").rstrip("/")
    name = path[len(operation.prefix) : -len(operation.suffix)]
    if "%" in name:
        name = unquote(name)
    query: bytes = scope["query_string"]
    qualifier = None
    if query:
        values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("Qualifier")
        qualifier = values[0] if values else None
    kind = headers.get(b"x-amz-invocation-type", b"RequestResponse").decode("latin-1")
    log_type = headers.get(b"x-amz-log-type", b"None").decode("latin-1")
    if kind not in operation.types or log_type not in _LOG_TYPES:
        raise _outside(("invocationType", kind, operation.types), ("logType", log_type, _LOG_TYPES))
    context = headers.get(b"x-amz-client-context")
    return InvokeRequest(
        name,
        qualifier,
        kind,
        log_type == "Tail",
        _client_context(context) if context else "",
        headers.get(b"x-amzn-trace-id", b"").decode("latin-1") or trace_id_of(os.urandom(20).hex()),
        headers.get(b"x-amz-tenant-id", b"").decode("latin-1"),
    )


def _outside(*members: tuple[str, str, Sequence[str]]) -> ValidationException:
    """For those members (name, value, allowed values) whose value is not allowed."""
    broken = [
        f"Value '{value}' at '{where}' failed to satisfy constraint: Member must satisfy enum value set: [{', '.join(allowed)}]"
        for where, value, allowed in members
        if value not in allowed
    ]
    word = "error" if len(broken) == 1 else "errors"
    return ValidationException(f"{len(broken)} validation {word} detected: {'; '.join(broken)}")


def _client_context(header: bytes) -> str:
    if len(header) > CLIENT_CONTEXT_BYTES:
        raise InvalidRequestContentException(f"Client context must be at most {CLIENT_CONTEXT_BYTES} bytes of Base64.")
    try:
        decoded = base64.b64decode(header, validate=True)
        _validate_json(decoded)
        text = decoded.decode()  # the validation above passes over the inside of strings
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = ""
    if not text.lstrip().startswith("{"):
        raise InvalidRequestContentException("Client context must be a valid Base64-encoded JSON object.")
    # It travels as one header line of the Runtime API.
    return text.replace("\r", " ").replace("\n", " ")


def request_id_of(digits: str) -> str:
    """A UUID of 32 random hexadecimal digits."""
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def trace_id_of(digits: str) -> str:
    """An X-Ray header, of 40 random hexadecimal digits, for an invocation that came without one; unsampled, because nobody asked for a
    trace."""
    return f"Root=1-{digits[:8]}-{digits[8:32]};Parent={digits[24:40]};Sampled=0"


async def read_body(receive: Receive, *, limit: int, declared: bytes | None, operation: HotOperation = INVOKE) -> bytes:
    """The whole body. Raises RequestEntityTooLargeException past ``limit`` bytes, without reading further."""
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(operation, limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise _too_large(operation, limit)
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > limit:
            raise _too_large(operation, limit)
    return b"".join(parts)


def _too_large(operation: HotOperation, limit: int) -> RequestEntityTooLargeException:
    return RequestEntityTooLargeException(f"Request must be smaller than {limit} bytes for the {operation.name} operation")


def check_event(body: bytes) -> bytes:
    """The event to hand on: an empty body means ``{}``. Raises InvalidRequestContentException where it is not JSON."""
    if not body:
        return b"{}"
    try:
        _validate_json(body)
        if not body.isascii():
            body.decode()  # the validation above passes over the inside of strings
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(str(error)) from None
    except RecursionError:  # AWS's parser has such a limit as well, of 1,000 levels
        raise _not_json("the document is nested too deeply") from None
    return body


def _not_json(reason: str) -> InvalidRequestContentException:
    return InvalidRequestContentException(f"Could not parse request body into json: Could not parse payload into json: {reason}")
