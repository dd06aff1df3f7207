"""Reading an archive from S3, or anything that speaks its protocol, in AWS's words where that fails.

botocore does the work, on a thread and imported at the first use only: most gateways never read from S3, and the import costs more
time and memory than starting one. It uses the endpoint and the keys of :class:`S3Settings` and nothing else: no profile, config
file or instance role of whoever started the gateway. It refuses objects over the size limit while they arrive.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from kappa_core.errors import AccessDeniedException, InvalidParameterValueException, LambdaError, ServiceException

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_CHUNK = 1024 * 1024
_CONNECT_SECONDS = 5
_READ_SECONDS = 30
_ATTEMPTS = 3


class S3Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where S3 is and with which keys Kappa itself reads from it."""

    endpoint: str | None = None
    """Base URL; None: no S3 is configured, functions can be created from uploads only."""
    access_key_id: str = "test"
    secret_access_key: str = "test"  # noqa: S105 - what local S3 stand-ins accept
    session_token: str | None = None
    path_style: bool = True
    """``endpoint/bucket/key``, which every S3-compatible server takes, instead of a host name per bucket."""


class ObjectSource(Protocol):
    """Where code is read from that is not in the request."""

    def download(self, target: Path, /, *, bucket: str, key: str, version: str | None, region: str, limit: int) -> bool:
        """Write an object to ``target``; False if it has more than ``limit`` bytes. Blocking. Raises LambdaError, OSError."""


class S3Source:
    """Thread-safe; one client for each region, made at its first use."""

    def __init__(self, settings: S3Settings, /) -> None:
        self._settings = settings
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def download(self, target: Path, /, *, bucket: str, key: str, version: str | None, region: str, limit: int) -> bool:
        if self._settings.endpoint is None:
            raise InvalidParameterValueException(
                "Error occurred while GetObject. No S3 endpoint is configured: set KAPPA_ENDPOINT_URL_S3 to the URL of an S3 service."
            )
        # Here and not at the top of the file: see the module.
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError  # noqa: PLC0415

        wanted = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
        try:
            found = self._client(region).get_object(**wanted)
            with found["Body"] as body, target.open("wb") as file:
                if found["ContentLength"] > limit:
                    return False
                size = 0
                while chunk := body.read(_CHUNK):
                    size += len(chunk)
                    if size > limit:
                        return False
                    file.write(chunk)
        except ClientError as error:
            raise _refusal(error, bucket=bucket, key=key) from error
        except ParamValidationError as error:
            text = " ".join(str(error).split())
            raise InvalidParameterValueException(f"Error occurred while GetObject. {text}") from error
        except BotoCoreError as error:
            raise ServiceException(f"Error occurred while GetObject. S3 does not answer as it should: {error}") from error
        return True

    def _client(self, region: str) -> Any:
        from botocore.config import Config  # noqa: PLC0415 - see the module
        from botocore.session import Session  # noqa: PLC0415

        with self._lock:
            if region not in self._clients:
                unset = (None, None, None, None)
                session = Session(session_vars={"profile": unset, "config_file": unset, "credentials_file": unset})
                self._clients[region] = session.create_client(
                    "s3",
                    region_name=region,
                    endpoint_url=self._settings.endpoint,
                    aws_access_key_id=self._settings.access_key_id,
                    aws_secret_access_key=self._settings.secret_access_key,
                    aws_session_token=self._settings.session_token,
                    config=Config(
                        connect_timeout=_CONNECT_SECONDS,
                        read_timeout=_READ_SECONDS,
                        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                        s3={"addressing_style": "path" if self._settings.path_style else "virtual"},
                        # Servers other than AWS's may send checksums that botocore does not know.
                        response_checksum_validation="when_required",
                    ),
                )
            return self._clients[region]

    def close(self) -> None:
        """Close the connections. Idempotent."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()


def _refusal(error: ClientError, *, bucket: str, key: str) -> LambdaError:
    code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    ending = f"S3 Error Code: {code}. S3 Error Message: {message}"
    if code == "AccessDenied":
        return AccessDeniedException(
            "Your access has been denied by S3, please make sure your request credentials have permission to GetObject "
            f"for {bucket}/{key}. {ending}"
        )
    return InvalidParameterValueException(f"Error occurred while GetObject. {ending}")
