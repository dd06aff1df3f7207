"""Where the code of a request is: in it, or in S3. One of them, whole, and nothing that cannot run here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kappa_core.errors import InvalidParameterValueException

NO_IMAGES: Final = "Container images cannot run here: provide the code as a zip archive, with package type Zip."


class ZipSource(msgspec.Struct, frozen=True):
    data: bytes


class S3Source(msgspec.Struct, frozen=True):
    bucket: str
    key: str
    version: str | None = None


def source_of(members: Mapping[str, Any]) -> ZipSource | S3Source:
    """The source among the members ZipFile, S3Bucket, S3Key, S3ObjectVersion, S3ObjectStorageMode and ImageUri.

    Raises InvalidParameterValueException where there is none, more than one, half of one, or an image.
    """
    data = members.get("ZipFile")
    bucket, key = members.get("S3Bucket"), members.get("S3Key")
    if members.get("ImageUri") is not None:
        raise InvalidParameterValueException(NO_IMAGES)
    if members.get("S3ObjectStorageMode", "COPY") != "COPY":
        raise InvalidParameterValueException("Code is always copied here: S3ObjectStorageMode must be COPY or left out.")
    if data is not None:
        if bucket is not None or key is not None or members.get("S3ObjectVersion") is not None:
            raise InvalidParameterValueException("Please do not provide other FunctionCode parameters when providing a ZipFile.")
        return ZipSource(data)
    if bucket is None and key is None:
        raise InvalidParameterValueException("Please provide a source for function code.")
    if bucket is None or key is None:
        raise InvalidParameterValueException("Please provide both S3Bucket and S3Key.")
    return S3Source(bucket, key, members.get("S3ObjectVersion"))
