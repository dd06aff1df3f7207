"""Two real gateway processes on one data directory: same functions, shared environments, one limit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kappa_dev import KappaDev

COUNTING = """
import fcntl, os, time
def handler(event, context):
    path = "/dev/shm/" + event["counter"]
    with open(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0); now = int(file.read() or 0) + 1
        file.seek(0); file.truncate(); file.write(str(now))
    time.sleep(event.get("seconds", 0))
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        left = int(file.read()) - 1
        file.seek(0); file.truncate(); file.write(str(left))
    return {"at_once": now, "pid": os.getpid()}
"""


@pytest.fixture
def pair(start_kappa: Callable[..., KappaDev], tmp_path: Path) -> tuple[KappaDev, KappaDev]:
    first, second = f"unix:{tmp_path}/a.sock", f"unix:{tmp_path}/b.sock"
    shared = tmp_path / "shared"
    return (
        start_kappa(data_dir=shared, KAPPA_LINK=first, KAPPA_PEERS=second),
        start_kappa(data_dir=shared, KAPPA_LINK=second, KAPPA_PEERS=first, KAPPA_SCALER=first),
    )


@pytest.fixture
def counter() -> Iterator[str]:
    name = f"kappa-test-{time.monotonic_ns()}"
    yield name
    Path("/dev/shm", name).unlink(missing_ok=True)


def invoke(kappa: KappaDev, name: str, event: Any) -> Any:
    answer = kappa.client().invoke(FunctionName=name, Payload=json.dumps(event).encode())
    assert "FunctionError" not in answer, answer["Payload"].read()
    return json.loads(answer["Payload"].read())


def test_what_one_gateway_creates_the_other_serves_from_the_same_environment(
    pair: tuple[KappaDev, KappaDev], counter: str
) -> None:
    holder, other = pair
    holder.create_function("shared", {"app.py": COUNTING})
    holder.client().put_function_concurrency(FunctionName="shared", ReservedConcurrentExecutions=1)
    seen = [invoke(gateway, "shared", {"counter": counter}) for gateway in (holder, other, holder, other, other, holder)]
    assert len({one["pid"] for one in seen}) == 1
    assert {one["at_once"] for one in seen} == {1}


def test_reserved_concurrency_is_exact_over_both(pair: tuple[KappaDev, KappaDev], counter: str) -> None:
    holder, other = pair
    holder.create_function("exact", {"app.py": COUNTING}, Timeout=20)
    holder.client().put_function_concurrency(FunctionName="exact", ReservedConcurrentExecutions=3)
    clients = [gateway.client() for gateway in pair]

    def call(number: int) -> int | None:
        client = clients[number % 2]
        try:
            answer = client.invoke(FunctionName="exact", Payload=json.dumps({"counter": counter, "seconds": 0.15}).encode())
        except client.exceptions.TooManyRequestsException as error:
            if error.response["Reason"] != "ReservedFunctionConcurrentInvocationLimitExceeded":
                raise
            return None
        at_once: int = json.loads(answer["Payload"].read())["at_once"]
        return at_once

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(call, range(80)))
    ran = [one for one in outcomes if one is not None]
    assert ran
    assert max(ran) <= 3
    assert other.client().invoke(FunctionName="exact", Payload=json.dumps({"counter": counter}).encode())["StatusCode"] == 200
