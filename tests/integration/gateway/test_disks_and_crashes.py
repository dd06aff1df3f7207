"""Full disks and kill -9: a clear error or a whole function, and nothing in between."""

from __future__ import annotations

import random
import re
import resource
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import botocore.exceptions
import pytest

from functions_by_boto3 import create, invoke, settled
from kappa_dev import KappaDev, zip_of

ECHO = {"app.py": "def handler(event, context):\n    return event\n"}


def files_of(kappa: KappaDev, *folders: str) -> list[str]:
    return sorted(str(path) for folder in folders for path in (kappa.data_dir / folder).rglob("*") if path.is_file())


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits the files of another process")
def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_made(start_kappa: Callable[..., KappaDev]) -> None:
    kappa = start_kappa()
    client = kappa.client()
    create(client, "small", ECHO)
    assert invoke(client, "small", 1) == 1
    before = files_of(kappa, "blobs", "trees")
    large: dict[str, str | bytes] = {**ECHO, "data": random.Random(0).randbytes(3_000_000)}  # so that it does not compress
    _, hard = resource.prlimit(kappa.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(kappa.pid, resource.RLIMIT_FSIZE, (2_000_000, hard))
    with pytest.raises(client.exceptions.ServiceException) as caught:
        create(client, "large", large)
    assert re.search("could not be stored: .*blobs cannot be used: no space left", caught.value.response["Error"]["Message"])
    with pytest.raises(client.exceptions.ServiceException):
        client.update_function_code(FunctionName="small", ZipFile=zip_of(large))
    assert files_of(kappa, "blobs", "trees") == before
    # An archive that fits and a tree that does not: accepted, but it cannot be unpacked.
    create(client, "unpacked", {**ECHO, "data": bytes(3_000_000)})
    described = settled(client, "unpacked")
    assert described["State"] == "Failed"
    assert "File too large" in described["StateReason"]
    assert [path for path in files_of(kappa, "trees") if path not in before and "/locks/" not in path] == []
    assert invoke(client, "small", 2) == 2
    resource.prlimit(kappa.pid, resource.RLIMIT_FSIZE, (hard, hard))
    create(client, "large", large)
    assert invoke(client, "large", 3) == 3
    kappa.stop()
    kappa.start()  # what failed for want of room is tried again
    client = kappa.client()
    settled(client, "unpacked", among=("Pending", "Failed"))
    assert invoke(client, "unpacked", 4) == 4
    assert "Traceback" not in kappa.output


def test_every_acknowledged_function_survives_kill_9_and_nothing_half_created_shows(start_kappa: Callable[..., KappaDev]) -> None:
    kappa = start_kappa()
    chance = random.Random(7)
    acknowledged: dict[str, bool] = {}
    for crash in range(3):
        client = kappa.client()
        client.get_account_settings()  # the first request waits for what is loaded at a start

        def creating(worker: int, crash: int = crash, client: Any = client) -> None:
            for number in range(25):
                name, publish = f"f{crash}-{worker}-{number}", number % 2 == 0
                try:
                    create(client, name, {"app.py": f"def handler(event, context):\n    return {name!r}\n"}, Publish=publish)
                except (
                    botocore.exceptions.HTTPClientError,
                    botocore.exceptions.ConnectionError,
                    botocore.exceptions.ClientError,
                ):
                    return
                acknowledged[name] = publish

        with ThreadPoolExecutor(3) as pool:
            running = [pool.submit(creating, worker) for worker in range(3)]
            time.sleep(chance.uniform(0.1, 0.4))
            kappa.kill()
            for each in running:
                each.result()
        kappa.start()
    client = kappa.client()
    pages = client.get_paginator("list_functions").paginate()
    listed = {each["FunctionName"] for page in pages for each in page["Functions"]}
    assert set(acknowledged) <= listed
    assert len(acknowledged) > 6

    def works(name: str) -> bool:
        """Asserts that everything about a function is there."""
        versions = [each["Version"] for each in client.list_versions_by_function(FunctionName=name)["Versions"]]
        if acknowledged.get(name):
            assert versions == ["$LATEST", "1"]
        assert settled(client, name)["State"] == "Active"
        with urllib.request.urlopen(client.get_function(FunctionName=name)["Code"]["Location"], timeout=10) as response:
            assert response.read()[:2] == b"PK"
        return all(invoke(client, name, Qualifier=version) == name for version in versions)

    # Every one must be whole; starting a process for each would take long, so those next to each crash stand for all there.
    assert all(settled(client, name)["State"] == "Active" for name in listed)
    newest = sorted(listed, key=lambda name: [int(part) for part in name[1:].split("-")][::2], reverse=True)
    assert all(works(name) for crash in range(3) for name in [one for one in newest if one.startswith(f"f{crash}-")][:4])
