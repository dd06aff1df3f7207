"""Code from S3: moto as a server in a process of its own, reached through a real client."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.session
import msgspec
import pytest

from kappa_core.errors import AccessDeniedException, InvalidParameterValueException, LambdaError, ServiceException
from kappa_core.limits import Limits
from kappa_core.memory import MemoryBlobStore
from kappa_core.resources import Code
from kappa_gateway.code.intake import CodeIntake
from kappa_gateway.code.s3 import S3Settings
from zip_samples import files

REGION = "eu-central-1"
BUCKET = "code"
LIMITS = msgspec.structs.replace(Limits(), unzipped_bytes=1_000_000)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(f"{url}/moto-api/")
            yield url
        finally:
            server.kill()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="module")
def bucket(endpoint: str) -> Iterator[Any]:
    client = botocore.session.Session().create_client(
        "s3", region_name=REGION, endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield client
    client.close()


def take(endpoint: str | None, bucket_name: str, key: str, version: str | None = None) -> Code | LambdaError:
    async def main() -> Code | LambdaError:
        blobs = MemoryBlobStore(clock_ms=lambda: 0)
        intake = CodeIntake(blobs, LIMITS, S3Settings(endpoint=endpoint))
        try:
            return await intake.from_s3(bucket_name, key, version, region=REGION)
        except LambdaError as error:
            assert [info async for info in blobs.all()] == []
            return error
        finally:
            await intake.close()

    return asyncio.run(main())


def test_an_object_becomes_code(endpoint: str, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever starts a gateway may have a profile that does not exist there; it is not ours to use.
    monkeypatch.setenv("AWS_PROFILE", "of-somebody-else")
    data = files({"app.py": "content"})
    bucket.put_object(Bucket=BUCKET, Key="a folder/code+1.zip", Body=data)
    code = take(endpoint, BUCKET, "a folder/code+1.zip")
    assert isinstance(code, Code)
    assert (code.size, code.unzipped_size, code.source) == (len(data), 7, "s3://code/a folder/code+1.zip")


def test_a_version_that_is_named_is_the_one_taken(endpoint: str, bucket: Any) -> None:
    first = bucket.put_object(Bucket=BUCKET, Key="versioned.zip", Body=files({"app.py": "1"}))["VersionId"]
    bucket.put_object(Bucket=BUCKET, Key="versioned.zip", Body=files({"app.py": "22"}))
    newest, named = take(endpoint, BUCKET, "versioned.zip"), take(endpoint, BUCKET, "versioned.zip", first)
    assert isinstance(newest, Code)
    assert isinstance(named, Code)
    assert (newest.unzipped_size, named.unzipped_size) == (2, 1)


@pytest.mark.parametrize(
    ("bucket_name", "key", "text"),
    [
        (
            BUCKET,
            "missing.zip",
            "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist.",
        ),
        (
            "no-such-bucket",
            "code.zip",
            "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist",
        ),
    ],
)
def test_what_is_not_there_is_said_in_the_words_of_aws(endpoint: str, bucket: Any, bucket_name: str, key: str, text: str) -> None:
    error = take(endpoint, bucket_name, key)
    assert isinstance(error, InvalidParameterValueException)
    assert error.message == text


def test_an_object_that_is_no_archive_is_refused(endpoint: str, bucket: Any) -> None:
    bucket.put_object(Bucket=BUCKET, Key="text.zip", Body=b"text")
    error = take(endpoint, BUCKET, "text.zip")
    assert isinstance(error, InvalidParameterValueException)
    assert str(error.message).startswith("Could not unzip uploaded file.")


def test_an_object_over_the_limit_is_refused(endpoint: str, bucket: Any) -> None:
    bucket.put_object(Bucket=BUCKET, Key="large.zip", Body=bytes(1_000_001))
    error = take(endpoint, BUCKET, "large.zip")
    assert isinstance(error, InvalidParameterValueException)
    assert error.message == "Unzipped size must be smaller than 1000000 bytes"


def test_an_endpoint_that_does_not_answer_is_a_service_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        error = take(f"http://127.0.0.1:{taken.getsockname()[1]}", BUCKET, "code.zip")
    assert isinstance(error, ServiceException)
    assert "S3 does not answer" in str(error.message)


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that answers everything with 403, as S3 does without permission, or with a web page."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = b"<html>Bad gateway</html>"
            denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            body = page if "page" in self.path else denied
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_lack_of_permission_is_said_in_the_words_of_aws(refusing: str) -> None:
    error = take(refusing, BUCKET, "code.zip")
    assert isinstance(error, AccessDeniedException)
    assert error.message == (
        "Your access has been denied by S3, please make sure your request credentials have permission to GetObject for "
        "code/code.zip. S3 Error Code: AccessDenied. S3 Error Message: Access Denied"
    )


def test_a_server_that_is_no_s3_gets_one_clear_line(refusing: str) -> None:
    error = take(refusing, "page", "code.zip")
    assert isinstance(error, LambdaError)
    assert "\n" not in str(error.message)
    assert str(error.message).startswith("Error occurred while GetObject.")


def test_a_gateway_that_never_reads_from_s3_does_not_load_the_sdk() -> None:
    script = (
        "import sys, kappa_gateway.code.intake; print([name for name in sys.modules if name.startswith(('boto', 'urllib3'))])"
    )
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout == "[]\n"
