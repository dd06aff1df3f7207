"""Asynchronous invocations through a real gateway: accepted, run, retried and given up, seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from kappa_dev import SCRIPTS, KappaDev, kappa_dev, zip_of
from moto_services import until

APP = """
import json, os, time
LABEL = "old"
def handler(event, context):
    with open(os.environ["SEEN"], "a") as seen:
        line = {"id": context.aws_request_id, "event": event, "label": LABEL, "version": context.function_version,
                "client": context.client_context is not None}
        seen.write(json.dumps(line) + "\\n")
    if event.get("sleep"): time.sleep(event["sleep"])
    if event.get("fail"): raise ValueError("no")
    return event
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KappaDev]:
    settings = {"KAPPA_ASYNC_RETRY_DELAYS": "0.2,0.3", "KAPPA_ASYNC_THROTTLE_DELAYS": "0.1,0.5", "KAPPA_SANDBOX": "plain"}
    with kappa_dev(tmp_path_factory.mktemp("events") / "data", settings=settings) as running:
        yield running


class Seen:
    """A function that writes down each of its runs."""

    def __init__(self, kappa: KappaDev, name: str, folder: Path, **parameters: Any) -> None:
        self.name = name
        self._file = folder / f"{name}.jsonl"
        self._client = kappa.client()
        environment = {"Variables": {"SEEN": str(self._file)}}
        kappa.create_function(name, {"app.py": APP}, Environment=environment, **parameters)

    def send(self, event: Any, **parameters: Any) -> str:
        """Invoke asynchronously; the request id."""
        answer = self._client.invoke(
            FunctionName=self.name, InvocationType="Event", Payload=json.dumps(event).encode(), **parameters
        )
        assert answer["StatusCode"] == 202
        return str(answer["ResponseMetadata"]["RequestId"])

    @property
    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []

    def after(self, count: int) -> list[dict[str, Any]]:
        until(lambda: len(self.runs) >= count)
        return self.runs


def kappa_async(kappa: KappaDev, *arguments: str) -> str:
    ran = subprocess.run(
        [SCRIPTS / "kappa", "async", *arguments, "--endpoint-url", kappa.endpoint], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def stats(kappa: KappaDev, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(kappa_async(kappa, "list", "--output", "json"))
    return next((one for one in found if one["FunctionName"] == name), {})


def test_an_event_is_answered_with_202_and_nothing_else_and_runs_once(gateway: KappaDev, tmp_path: Path) -> None:
    seen = Seen(gateway, "accepted", tmp_path)
    answer = gateway.client().invoke(FunctionName="accepted", InvocationType="Event", Payload=b'{"n": 1}', ClientContext="e30=")
    assert answer["StatusCode"] == 202
    assert answer["Payload"].read() == b""
    assert "ExecutedVersion" not in answer
    assert "FunctionError" not in answer
    (run,) = seen.after(1)
    assert run["event"] == {"n": 1}
    assert run["id"] == answer["ResponseMetadata"]["RequestId"]
    assert run["client"] is False
    until(lambda: stats(gateway, "accepted")["Done"] == 1)
    assert len(seen.runs) == 1


def test_an_event_without_a_payload_is_an_empty_object(gateway: KappaDev, tmp_path: Path) -> None:
    seen = Seen(gateway, "empty", tmp_path)
    gateway.client().invoke(FunctionName="empty", InvocationType="Event")
    assert seen.after(1)[0]["event"] == {}


def test_what_fails_runs_three_times_under_one_id_and_is_a_dead_letter_then(gateway: KappaDev, tmp_path: Path) -> None:
    seen = Seen(gateway, "failing", tmp_path)
    request_id = seen.send({"fail": True})
    assert [run["id"] for run in seen.after(3)] == [request_id] * 3
    until(lambda: stats(gateway, "failing")["Dead"] == 1)
    assert len(seen.runs) == 3
    listed = json.loads(kappa_async(gateway, "list", "failing", "--output", "json"))
    assert [(one["EventId"], one["Reason"], one["Detail"]) for one in listed] == [(request_id, "RetriesExhausted", "no")]
    assert request_id in kappa_async(gateway, "list", "failing")
    shown = json.loads(kappa_async(gateway, "show", request_id))
    assert (shown["State"], shown["Payload"]) == ("dead", {"fail": True})
    kappa_async(gateway, "redrive", "failing", "--id", request_id)
    assert len(seen.after(6)) == 6
    until(lambda: stats(gateway, "failing")["Dead"] == 1)
    assert kappa_async(gateway, "purge", "failing") == "1 event is gone\n"
    assert stats(gateway, "failing")["Dead"] == 0


def test_the_configuration_of_the_qualifier_that_was_invoked_holds(gateway: KappaDev, tmp_path: Path) -> None:
    seen = Seen(gateway, "configured", tmp_path)
    client = gateway.client()
    client.publish_version(FunctionName="configured")
    client.create_alias(FunctionName="configured", Name="live", FunctionVersion="1")
    client.put_function_event_invoke_config(FunctionName="configured", Qualifier="live", MaximumRetryAttempts=0)
    shown = client.get_function_event_invoke_config(FunctionName="configured", Qualifier="live")
    assert (shown["MaximumRetryAttempts"], shown["DestinationConfig"]) == (0, {"OnSuccess": {}, "OnFailure": {}})
    live = seen.send({"fail": True}, Qualifier="live")
    until(lambda: stats(gateway, "configured").get("Dead") == 1)
    assert [(run["id"], run["version"]) for run in seen.runs] == [(live, "1")]
    seen.send({"fail": True})
    until(lambda: stats(gateway, "configured").get("Dead") == 2)
    assert [run["version"] for run in seen.runs] == ["1", "$LATEST", "$LATEST", "$LATEST"]


def test_events_that_wait_run_on_the_new_code(gateway: KappaDev, tmp_path: Path) -> None:
    seen = Seen(gateway, "updated", tmp_path)
    client = gateway.client()
    client.put_function_concurrency(FunctionName="updated", ReservedConcurrentExecutions=1)
    seen.send({"sleep": 1.5})
    seen.after(1)
    waiting = [seen.send({"n": number}) for number in range(5)]

    client.update_function_code(FunctionName="updated", ZipFile=zip_of({"app.py": APP.replace('"old"', '"new"')}))
    client.get_waiter("function_updated_v2").wait(FunctionName="updated", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    runs = {run["id"]: run["label"] for run in seen.after(6)}
    assert [runs[request_id] for request_id in waiting] == ["new"] * 5


def test_without_reserved_concurrency_an_event_is_accepted_and_given_up_at_once(gateway: KappaDev, tmp_path: Path) -> None:
    seen = Seen(gateway, "closed", tmp_path)
    gateway.client().put_function_concurrency(FunctionName="closed", ReservedConcurrentExecutions=0)
    seen.send({})
    until(lambda: stats(gateway, "closed").get("Dead") == 1)
    (dead,) = json.loads(kappa_async(gateway, "list", "closed", "--output", "json"))
    assert dead["Reason"] == "ZeroReservedConcurrency"
    assert seen.runs == []


def test_throttled_events_wait_and_all_run(gateway: KappaDev, tmp_path: Path) -> None:
    seen = Seen(gateway, "narrow", tmp_path)
    gateway.client().put_function_concurrency(FunctionName="narrow", ReservedConcurrentExecutions=1)
    sent = {seen.send({"sleep": 0.05, "n": number}) for number in range(20)}
    until(lambda: stats(gateway, "narrow")["Done"] == 20, seconds=60)
    assert {run["id"] for run in seen.runs} == sent
    assert len(seen.runs) == 20


def test_events_of_a_deleted_function_never_reach_the_next_of_its_name(gateway: KappaDev, tmp_path: Path) -> None:
    seen = Seen(gateway, "mortal", tmp_path)
    gateway.client().put_function_concurrency(FunctionName="mortal", ReservedConcurrentExecutions=1)
    seen.send({"sleep": 2})
    seen.after(1)
    for number in range(10):
        seen.send({"n": number})
    gateway.client().delete_function(FunctionName="mortal")
    again = Seen(gateway, "mortal", tmp_path)
    again.send({"for": "the next"})
    until(lambda: any(run["event"] == {"for": "the next"} for run in again.runs))
    until(lambda: sum(one["Waiting"] for one in json.loads(kappa_async(gateway, "list", "--output", "json"))) == 0)
    assert [run["event"] for run in again.runs if "n" in run["event"]] == []
    metrics = urllib.request.urlopen(f"{gateway.endpoint}/metrics").read().decode()
    assert 'kappa_async_events_total{outcome="function_deleted"} 1' in metrics


@pytest.mark.parametrize(("size", "accepted"), [(1_048_576, True), (1_048_577, False)])
def test_an_event_of_a_mebibyte_is_the_largest(gateway: KappaDev, tmp_path: Path, size: int, accepted: bool) -> None:
    name = f"large{size}"
    seen = Seen(gateway, name, tmp_path)
    payload = b'"' + b"x" * (size - 2) + b'"'
    client = gateway.client()
    if accepted:
        code = "import json\ndef handler(event, context):\n    print(len(json.dumps(event)))\n    return len(event)\n"

        client.update_function_code(FunctionName=name, ZipFile=zip_of({"app.py": code}))
        client.invoke(FunctionName=name, InvocationType="Event", Payload=payload)
        until(lambda: stats(gateway, name).get("Done") == 1)
        return
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.invoke(FunctionName=name, InvocationType="Event", Payload=payload)
    assert caught.value.response["Error"]["Code"] == "RequestEntityTooLargeException"
    assert caught.value.response["Error"]["Message"] == (
        f"{size} byte payload is too large for the Event invocation type (limit 1048576 bytes)"
    )
    assert seen.runs == []


def test_metrics_tell_what_waits_and_what_ended(gateway: KappaDev, tmp_path: Path) -> None:
    seen = Seen(gateway, "measured", tmp_path)
    seen.send({})
    until(lambda: stats(gateway, "measured").get("Done") == 1)
    metrics = urllib.request.urlopen(f"{gateway.endpoint}/metrics").read().decode()
    assert "kappa_async_events_total{outcome=" in metrics
    assert 'kappa_queue_depth{account="000000000000",function="' in metrics
    assert 'mode="Event"' in metrics


def test_another_account_sees_nothing_of_it(gateway: KappaDev, tmp_path: Path) -> None:
    seen = Seen(gateway, "private", tmp_path)
    request_id = seen.send({})
    seen.after(1)
    theirs = os.environ | {"AWS_ACCESS_KEY_ID": "111122223333", "AWS_SECRET_ACCESS_KEY": "x"}
    command = [SCRIPTS / "kappa", "async", "list", "--output", "json", "--endpoint-url", gateway.endpoint]
    ran = subprocess.run(command, env=theirs, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == []
    command = [SCRIPTS / "kappa", "async", "show", request_id, "--endpoint-url", gateway.endpoint]
    ran = subprocess.run(command, env=theirs, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "ResourceNotFoundException" in ran.stderr
