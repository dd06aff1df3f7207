"""What every answer of the Lambda API carries, whoever produces it: the request id, and errors in AWS's form.

Used by the FastAPI control plane and by the raw invoke path alike, so it imports nothing but the core: no web framework, no
pydantic, no botocore. It decides nothing; the error classes know their status, code and body.
"""

from __future__ import annotations

import json
import logging
from typing import Final
from uuid import uuid4

from kappa_core.errors import LambdaError, ServiceException

REQUEST_ID_HEADER: Final = "x-amzn-RequestId"
ERROR_TYPE_HEADER: Final = "x-amzn-ErrorType"

ErrorResponse = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""

_log = logging.getLogger(__name__)


def new_request_id() -> str:
    """A random (version 4) UUID, as Lambda's request ids are."""
    return str(uuid4())


def error_response(error: LambdaError, request_id: str) -> ErrorResponse:
    """The answer for an error: SDKs take the exception class from ``x-amzn-ErrorType``, people the text from the body."""
    headers = {
        "content-type": "application/json",
        REQUEST_ID_HEADER: request_id,
        ERROR_TYPE_HEADER: error.code,
        **error.headers(),
    }
    return error.status, headers, json.dumps(error.body(), ensure_ascii=True, separators=(",", ":")).encode()


def unexpected_error_response(error: BaseException, request_id: str) -> ErrorResponse:
    """The answer for a bug: logged with its traceback under the request id, of which alone the caller learns."""
    _log.error("request %s failed unexpectedly", request_id, exc_info=error)
    return error_response(ServiceException(f"An internal error occurred. Request id: {request_id}"), request_id)
