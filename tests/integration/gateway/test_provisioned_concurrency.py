"""Provisioned concurrency on one machine, with real processes: initialised before READY, used first, replaced, and there again after a
crash of the gateway."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import botocore.exceptions
import pytest

from kappa_dev import KappaDev

CODE = """
import os, socket, time
BORN = time.time()
if os.environ.get("BROKEN"):
    raise RuntimeError("no init")
def handler(event, context):
    if event.get("exit"): os._exit(1)
    if "gate" in event:
        with socket.create_connection(("127.0.0.1", event["gate"])) as gate: gate.recv(1)
    return {"pid": os.getpid(), "type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], "born": BORN,
            "version": context.function_version}
"""
SECONDS = 20.0


def eventually(look: Callable[[], Any], fits: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + SECONDS
    while True:
        found = look()
        if fits(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


class Provisioned:
    """A function with a version 1 and an alias `live`."""

    def __init__(self, kappa: KappaDev, name: str, **parameters: Any) -> None:
        self.client, self.name = kappa.client(), name
        kappa.create_function(name, {"app.py": CODE}, **parameters)
        self.client.publish_version(FunctionName=name)
        self.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")

    def put(self, qualifier: str, number: int) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.put_provisioned_concurrency_config(
            FunctionName=self.name, Qualifier=qualifier, ProvisionedConcurrentExecutions=number
        )
        return answer

    def get(self, qualifier: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get_provisioned_concurrency_config(FunctionName=self.name, Qualifier=qualifier)
        return answer

    def ready(self, qualifier: str, number: int) -> dict[str, Any]:
        state: dict[str, Any] = eventually(
            lambda: self.get(qualifier),
            lambda found: (found["Status"], found["AvailableProvisionedConcurrentExecutions"]) == ("READY", number),
        )
        return state

    def invoke(self, qualifier: str, **event: Any) -> dict[str, Any]:
        answer = self.client.invoke(FunctionName=self.name, Qualifier=qualifier, Payload=json.dumps(event))
        result: dict[str, Any] = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, result
        return result


def after_a_death(function: Provisioned) -> dict[str, Any]:
    """What an invocation returns; nothing where it was given to an environment whose end nobody had noticed yet."""
    try:
        return function.invoke("1")
    except AssertionError:
        return {}


def metric(kappa: KappaDev, series: str) -> float:
    page = urlopen(f"{kappa.endpoint}/metrics", timeout=10).read().decode()
    (line,) = [line for line in page.splitlines() if line.startswith(f"{series} ")]
    return float(line.split()[-1])


def test_environments_are_initialised_before_ready_and_serve_first(kappa: KappaDev) -> None:
    function = Provisioned(kappa, "first")
    answer = function.put("1", 2)
    assert answer["Status"] == "IN_PROGRESS"
    assert answer["RequestedProvisionedConcurrentExecutions"] == 2
    function.ready("1", 2)
    ready_at = time.time()
    found = [function.invoke("1") for _ in range(3)]
    assert {one["type"] for one in found} == {"provisioned-concurrency"}
    assert all(one["born"] < ready_at for one in found)
    with socket.create_server(("127.0.0.1", 0)) as gate, ThreadPoolExecutor(2) as pool:
        gate.settimeout(SECONDS)
        running = [pool.submit(function.invoke, "1", gate=gate.getsockname()[1]) for _ in range(2)]
        held = [gate.accept()[0] for _ in running]
        assert function.invoke("1")["type"] == "on-demand"
        for connection in held:
            connection.close()
        assert {one.result()["type"] for one in running} == {"provisioned-concurrency"}
    function_1 = 'account="000000000000",function="first"'
    assert metric(kappa, f'kappa_gateway_provisioned_invocations_total{{{function_1},version="1"}}') == 5
    assert metric(kappa, f'kappa_gateway_provisioned_spillover_invocations_total{{{function_1},version="1"}}') == 1
    assert metric(kappa, f'kappa_provisioned_environments{{{function_1},state="ready",version="1"}}') == 2


def test_reserved_equal_to_provisioned_leaves_nothing_for_latest(kappa: KappaDev) -> None:
    function = Provisioned(kappa, "full")
    function.client.put_function_concurrency(FunctionName="full", ReservedConcurrentExecutions=1)
    function.put("live", 1)
    function.ready("live", 1)
    assert function.invoke("live")["type"] == "provisioned-concurrency"
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        function.invoke("$LATEST")
    assert refused.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert function.invoke("1")["type"] == "provisioned-concurrency"


def test_what_an_alias_has_provisioned_follows_it(kappa: KappaDev) -> None:
    function = Provisioned(kappa, "moves")
    function.put("live", 1)
    function.ready("live", 1)
    old = function.invoke("live")["pid"]
    function.client.update_function_configuration(FunctionName="moves", Description="another")
    function.client.get_waiter("function_updated_v2").wait(FunctionName="moves", WaiterConfig={"Delay": 0.05, "MaxAttempts": 400})
    version = function.client.publish_version(FunctionName="moves")["Version"]
    function.client.update_alias(FunctionName="moves", Name="live", FunctionVersion=version)
    function.ready("live", 1)
    found = function.invoke("live")
    assert (found["version"], found["type"]) == (version, "provisioned-concurrency")
    eventually(lambda: Path(f"/proc/{old}").exists(), lambda there: not there)
    function.client.delete_alias(FunctionName="moves", Name="live")
    eventually(lambda: Path(f"/proc/{found['pid']}").exists(), lambda there: not there)


def test_what_dies_is_replaced(kappa: KappaDev) -> None:
    function = Provisioned(kappa, "dies")
    function.put("1", 1)
    function.ready("1", 1)
    idle = function.invoke("1")["pid"]
    os.kill(idle, signal.SIGKILL)
    second = eventually(lambda: after_a_death(function), lambda found: found.get("type") == "provisioned-concurrency")
    assert second["pid"] != idle
    function.ready("1", 1)
    with pytest.raises(AssertionError, match="exited"):
        function.invoke("1", exit=True)
    function.ready("1", 1)
    assert (
        eventually(lambda: function.invoke("1"), lambda found: found["type"] == "provisioned-concurrency")["pid"] != second["pid"]
    )


def test_an_init_that_fails_is_told_in_the_status(kappa: KappaDev) -> None:
    function = Provisioned(kappa, "broken", Environment={"Variables": {"BROKEN": "1"}})
    function.put("1", 1)
    state = eventually(lambda: function.get("1"), lambda found: found["Status"] == "FAILED")
    assert state["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
    assert state["AvailableProvisionedConcurrentExecutions"] == 0
    with pytest.raises(AssertionError, match="no init"):
        function.invoke("1")
    function.client.delete_provisioned_concurrency_config(FunctionName="broken", Qualifier="1")


def test_it_is_there_again_after_a_kill(kappa: KappaDev) -> None:
    function = Provisioned(kappa, "again")
    function.put("live", 2)
    function.ready("live", 2)
    kappa.kill()
    killed_at = time.time()
    kappa.start()
    function.client = kappa.client()
    function.ready("live", 2)
    # READY is no memory of before: both are there, and as young as the gateway.
    assert metric(kappa, 'kappa_provisioned_environments{account="000000000000",function="again",state="ready",version="1"}') == 2
    found = function.invoke("live")
    assert found["type"] == "provisioned-concurrency"
    assert found["born"] > killed_at
