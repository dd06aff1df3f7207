"""Functions that invoke themselves, by boto3 or through each other's destinations: they run sixteen times, then it is over."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kappa_dev import SCRIPTS, KappaDev, kappa_dev
from moto_services import until

BY_BOTO3 = """
import boto3, json, os
client = boto3.client("lambda")
def handler(event, context):
    with open(os.environ["SEEN"], "a") as seen:
        seen.write("ran\\n")
    if os.path.getsize(os.environ["SEEN"]) < 25 * len("ran\\n"):
        client.invoke(FunctionName=context.function_name, InvocationType="Event", Payload=json.dumps(event))
"""
ONCE = """
import os
def handler(event, context):
    with open(os.environ["SEEN"], "a") as seen:
        seen.write("ran\\n")
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KappaDev]:
    with kappa_dev(tmp_path_factory.mktemp("recursion") / "data", settings={"KAPPA_SANDBOX": "plain"}) as running:
        yield running


def create(kappa: KappaDev, name: str, source: str, folder: Path) -> Path:
    """A function that adds a line to the file that is returned each time it runs."""
    seen = folder / name
    seen.touch()
    kappa.create_function(name, {"app.py": source}, Environment={"Variables": {"SEEN": str(seen)}})
    return seen


def runs(seen: Path) -> int:
    return len(seen.read_text().splitlines())


def dead_letters(kappa: KappaDev, name: str) -> list[dict[str, Any]]:
    command = [SCRIPTS / "kappa", "async", "list", name, "--output", "json", "--endpoint-url", kappa.endpoint]
    listed: list[dict[str, Any]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return listed


def test_a_function_that_invokes_itself_by_boto3_is_stopped_unless_it_may(gateway: KappaDev, tmp_path: Path) -> None:
    seen = create(gateway, "endless", BY_BOTO3, tmp_path)
    client = gateway.client()
    client.invoke(FunctionName="endless", InvocationType="Event")
    until(lambda: bool(dead_letters(gateway, "endless")))
    (dead,) = dead_letters(gateway, "endless")
    assert dead["Reason"] == "RecursiveInvocation"
    assert "recursive loop" in dead["Detail"]
    assert runs(seen) == 16
    client.put_function_recursion_config(FunctionName="endless", RecursiveLoop="Allow")
    client.invoke(FunctionName="endless", InvocationType="Event")
    until(lambda: runs(seen) == 25)


def test_functions_that_are_each_others_destination_are_stopped(gateway: KappaDev, tmp_path: Path) -> None:
    ping, pong = create(gateway, "ping", ONCE, tmp_path), create(gateway, "pong", ONCE, tmp_path)
    client = gateway.client()
    for name, other in (("ping", "pong"), ("pong", "ping")):
        arn = client.get_function_configuration(FunctionName=other)["FunctionArn"]
        client.put_function_event_invoke_config(FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": arn}})
    client.invoke(FunctionName="ping", InvocationType="Event")
    until(lambda: bool(dead_letters(gateway, "pong")))
    assert (runs(ping), runs(pong)) == (17, 16)
    assert [one["Reason"] for one in dead_letters(gateway, "pong")] == ["RecursiveInvocation"]
