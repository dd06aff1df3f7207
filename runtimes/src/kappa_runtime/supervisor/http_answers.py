"""The fixed bytes of the Runtime API's answers. Built once: the warm path only joins them."""

from __future__ import annotations

from typing import Final

import msgspec

_REASONS: Final = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    410: "Gone",
    413: "Payload Too Large",
}


def answer(status: int, body: bytes, content_type: str = "application/json", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def error(status: int, error_type: str, message: str) -> bytes:
    body = msgspec.json.encode({"errorMessage": message, "errorType": error_type})
    return answer(status, body)


ACCEPTED: Final = answer(202, b'{"status":"OK"}\n')
PONG: Final = answer(200, b"pong", "text/plain")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
INVALID_REQUEST_ID: Final = error(400, "InvalidRequestID", "Invalid request ID")
INVALID_RESPONSE_MODE: Final = error(400, "InvalidFunctionResponseMode", "Invalid function response mode")
NOT_FOUND: Final = error(404, "NotFound", "no such path in the Runtime API")
METHOD_NOT_ALLOWED: Final = error(405, "MethodNotAllowed", "this path takes another method")
MALFORMED: Final = answer(400, b"", headers="Connection: close\r\n")
FORBIDDEN: Final = error(403, "Forbidden", "the Runtime API answers the function's own processes only")
INIT_ERROR_TOO_LATE: Final = error(403, "InvalidStateTransition", "Transition from Ready to InitError is not allowed")
NO_RESTORE: Final = error(403, "InvalidStateTransition", "Transition from Started to RestoreReady is not allowed")
# Refused in the Extensions API's own words; an extension's client library knows them.
NO_EXTENSIONS: Final = error(403, "Extension.RegistrationClosed", "Extensions are not served by this environment")
NO_TELEMETRY: Final = error(202, "Telemetry.NotSupported", "Telemetry API is not supported")
NO_LOGS: Final = error(202, "Logs.NotSupported", "Logs API is not supported")
