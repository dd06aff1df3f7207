"""The way in for code: an archive from the request or from S3 is checked end to end, stored as a blob, and only then described.

What this returns may be written into a resource: the blob is durable first, so no resource ever names code that is not there, and
a crash in between leaves a blob that the sweeper collects. It refuses, in AWS's words, what is no archive, too large zipped or
unzipped, or unsafe to unpack; of what it refuses nothing is stored.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from kappa_core.archives.zips import check_zipped_size, inspect
from kappa_core.errors import InvalidParameterValueException
from kappa_core.limits import Limits
from kappa_core.ports.blobs import BlobStore, BlobStoreUnavailable
from kappa_core.resources import Code
from kappa_gateway.code.s3 import ObjectSource, S3Settings, S3Source

AT_ONCE = 2
"""Archives that are checked at the same time; more wait. Each takes a processor and up to its own size of memory."""


class CodeIntake:
    """See the module. ``source`` replaces S3 in tests."""

    def __init__(self, blobs: BlobStore, limits: Limits, s3: S3Settings, *, source: ObjectSource | None = None) -> None:
        self._blobs = blobs
        self._limits = limits
        self._s3 = S3Source(s3)
        self._source = source or self._s3
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def from_zip(self, data: bytes, /, *, source: str = "upload") -> Code:
        """Code from the bytes in a request (``ZipFile``). Raises AWS's refusals and BlobStoreUnavailable."""
        check_zipped_size(len(data), limits=self._limits)
        return await self._take(data, source=source)

    async def from_file(self, path: Path, /, *, source: str) -> Code:
        """Code that was downloaded. As from S3 it may be larger than what a request takes. Raises as :meth:`from_zip`."""
        return await self._take(path, source=source)

    async def from_s3(self, bucket: str, key: str, version: str | None = None, /, *, region: str) -> Code:
        """Code from an object. As on AWS it may be larger than what a request takes: the unzipped limit holds for it.

        Raises AWS's refusals, ServiceException where S3 is not to be reached, and BlobStoreUnavailable.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="kappa-s3-") as folder:
                path = Path(folder, "code.zip")
                limit = self._limits.unzipped_bytes
                whole = await asyncio.to_thread(
                    self._source.download, path, bucket=bucket, key=key, version=version, region=region, limit=limit
                )
                if not whole:
                    raise InvalidParameterValueException(f"Unzipped size must be smaller than {limit} bytes")
                return await self._take(path, source=f"s3://{bucket}/{key}")
        except OSError as error:
            raise BlobStoreUnavailable(f"code from S3 cannot be kept in {tempfile.gettempdir()}: {error.strerror}") from error

    async def close(self) -> None:
        """Close the connections to S3. Idempotent."""
        await asyncio.to_thread(self._s3.close)

    async def _take(self, archive: bytes | Path, *, source: str) -> Code:
        async with self._turns:
            unzipped_size = await asyncio.to_thread(inspect, archive, limits=self._limits)
            blob = await self._blobs.put(archive)
        return Code(sha256=blob.sha256, size=blob.size, unzipped_size=unzipped_size, source=source)
