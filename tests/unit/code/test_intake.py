"""Code is checked, then stored, then described; of what is refused nothing is stored."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from kappa_core.errors import InvalidParameterValueException, LambdaError, RequestEntityTooLargeException
from kappa_core.limits import Limits
from kappa_core.memory import MemoryBlobStore
from kappa_core.resources import Code, Sha256
from kappa_gateway.code.intake import CodeIntake
from kappa_gateway.code.s3 import S3Settings
from zip_samples import archive, files

SMALL = msgspec.structs.replace(Limits(), zip_bytes=5_000, unzipped_bytes=100_000)


class Shelf:
    """Objects by bucket and key, in place of S3."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = objects

    def download(self, target: Path, /, *, bucket: str, key: str, version: str | None, region: str, limit: int) -> bool:
        data = self.objects[bucket]
        target.write_bytes(data[:limit])
        return len(data) <= limit


def run(scenario: Callable[[CodeIntake], Awaitable[Code]], *, shelf: Shelf | None = None) -> tuple[Code | LambdaError, int]:
    """What the scenario gives or is refused with, and how many blobs there are afterwards."""

    async def main() -> tuple[Code | LambdaError, int]:
        blobs = MemoryBlobStore(clock_ms=lambda: 0)
        intake = CodeIntake(blobs, SMALL, S3Settings(), source=shelf)
        outcome: Code | LambdaError
        try:
            outcome = await scenario(intake)
            assert await blobs.stat(outcome.sha256) is not None
        except LambdaError as error:
            outcome = error
        await intake.close()
        return outcome, len([info async for info in blobs.all()])

    return asyncio.run(main())


def test_an_uploaded_archive_is_described_as_aws_does() -> None:
    data = files({"app.py": "x" * 500})
    code, blobs = run(lambda intake: intake.from_zip(data))
    assert code == Code(sha256=code_sha(data), size=len(data), unzipped_size=500, source="upload")
    assert blobs == 1


def code_sha(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("data", "type_", "text"),
    [
        (b"not a zip", InvalidParameterValueException, "Could not unzip uploaded file."),
        (b"", InvalidParameterValueException, "Uploaded file must be a non-empty zip"),
        (bytes(5_001), RequestEntityTooLargeException, "Zipped size must be smaller than 5000 bytes"),
        (archive(("a", bytes(100_001))), InvalidParameterValueException, "Unzipped size must be smaller than 100000 bytes"),
    ],
)
def test_of_what_is_refused_nothing_is_stored(data: bytes, type_: type[LambdaError], text: str) -> None:
    outcome, blobs = run(lambda intake: intake.from_zip(data))
    assert isinstance(outcome, type_)
    assert str(outcome.message).startswith(text)
    assert blobs == 0


def test_an_object_may_be_larger_than_a_request() -> None:
    data = archive(*((f"{number}.bin", hashlib.sha512(b"%d" % number).digest() * 4) for number in range(60)))
    assert len(data) > SMALL.zip_bytes
    code, _ = run(lambda intake: intake.from_s3("bucket", "code.zip", region="eu-central-1"), shelf=Shelf(bucket=data))
    assert code == Code(sha256=code_sha(data), size=len(data), unzipped_size=60 * 256, source="s3://bucket/code.zip")


def test_an_object_over_the_limit_is_refused_and_not_stored() -> None:
    shelf = Shelf(bucket=bytes(100_001))
    outcome, blobs = run(lambda intake: intake.from_s3("bucket", "code.zip", region="eu-central-1"), shelf=shelf)
    assert isinstance(outcome, InvalidParameterValueException)
    assert outcome.message == "Unzipped size must be smaller than 100000 bytes"
    assert blobs == 0


def test_without_an_endpoint_s3_is_refused_with_what_to_do() -> None:
    outcome, _ = run(lambda intake: intake.from_s3("bucket", "code.zip", region="eu-central-1"))
    assert isinstance(outcome, InvalidParameterValueException)
    assert "No S3 endpoint is configured: set KAPPA_ENDPOINT_URL_S3" in str(outcome.message)


def test_many_uploads_at_once_are_all_taken() -> None:
    async def scenario(intake: CodeIntake) -> Code:
        codes = await asyncio.gather(*(intake.from_zip(files({"app.py": str(number)})) for number in range(12)))
        assert len({code.sha256 for code in codes}) == 12
        return codes[0]

    assert run(scenario)[1] == 12
