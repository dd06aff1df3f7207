"""Destinations and dead-letter queues: what a real server of SQS, SNS, EventBridge and S3 is sent, and what happens when it is away."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kappa_dev import KappaDev, kappa_dev
from moto_s3 import moto_s3
from moto_services import ACCOUNT, REGION, Services, until

APP = """
def handler(event, context):
    if event.get("fail"): raise ValueError("no" * event.get("long", 1))
    return {"echo": event}
"""
QUICK = {"KAPPA_ASYNC_RETRY_DELAYS": "0.1,0.1", "KAPPA_ASYNC_DELIVERY_DELAYS": "0.5,0.5,1,1,2,2", "KAPPA_ACCOUNT": ACCOUNT}


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with moto_s3() as endpoint:
        made = Services(endpoint)
        yield made
        made.close()


@pytest.fixture(scope="module")
def gateway(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KappaDev]:
    settings = QUICK | {"KAPPA_ENDPOINT_URL": services.endpoint, "KAPPA_DESTINATION_ACCESS_KEY_ID": ACCOUNT}
    with kappa_dev(tmp_path_factory.mktemp("deliveries") / "data", settings=settings) as running:
        yield running


@pytest.fixture
def send(gateway: KappaDev) -> Callable[..., str]:
    """Makes a function of a name with destinations, sends it an event, and gives the request id."""

    def make_and_send(name: str, event: Any, *, success: str = "", failure: str = "", **parameters: Any) -> str:
        gateway.create_function(name, {"app.py": APP}, **parameters)
        client = gateway.client()
        sides = {"OnSuccess": success, "OnFailure": failure}
        destinations = {side: {"Destination": arn} for side, arn in sides.items() if arn}
        if destinations:
            client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=destinations)
        answer = client.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(event).encode())
        return str(answer["ResponseMetadata"]["RequestId"])

    return make_and_send


def function_arn(name: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}:$LATEST"


def check_failure(record: dict[str, Any], name: str, request_id: str) -> None:
    """The recorded shape: every key, in its order."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["timestamp"])
    response = record.pop("responsePayload")
    assert list(response) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert (response["errorMessage"], response["errorType"]) == ("no", "ValueError")
    assert json.dumps(record) == json.dumps(
        {
            "version": "1.0",
            "timestamp": record["timestamp"],
            "requestContext": {
                "requestId": request_id,
                "functionArn": function_arn(name),
                "condition": "RetriesExhausted",
                "approximateInvokeCount": 3,
            },
            "requestPayload": {"fail": True},
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        }
    )


def test_a_queue_hears_of_a_success(services: Services, send: Callable[..., str]) -> None:
    url, arn = services.queue("succeeded")
    request_id = send("to-sqs", {"n": 1}, success=arn)
    (message,) = services.receive(url)
    record = json.loads(message["Body"])
    assert record == {
        "version": "1.0",
        "timestamp": record["timestamp"],
        "requestContext": {
            "requestId": request_id,
            "functionArn": function_arn("to-sqs"),
            "condition": "Success",
            "approximateInvokeCount": 1,
        },
        "requestPayload": {"n": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": {"echo": {"n": 1}},
    }


def test_a_queue_hears_of_a_failure_and_the_dead_letter_queue_gets_the_event(
    services: Services, send: Callable[..., str]
) -> None:
    url, arn = services.queue("failed")
    dead_url, dead_arn = services.queue("dead")
    request_id = send("both", {"fail": True}, failure=arn, DeadLetterConfig={"TargetArn": dead_arn})
    (message,) = services.receive(url)
    check_failure(json.loads(message["Body"]), "both", request_id)
    (dead,) = services.receive(dead_url)
    assert dead["Body"] == '{"fail": true}'
    attributes = {name: (one["DataType"], one["StringValue"]) for name, one in dead["MessageAttributes"].items()}
    assert attributes == {"RequestID": ("String", request_id), "ErrorCode": ("Number", "200"), "ErrorMessage": ("String", "no")}


def test_a_topic_hears_of_a_failure_and_can_be_a_dead_letter_queue(services: Services, send: Callable[..., str]) -> None:
    url, arn = services.topic("failures")
    dead_url, dead_arn = services.topic("dead-letters")
    request_id = send("to-sns", {"fail": True}, failure=arn, DeadLetterConfig={"TargetArn": dead_arn})
    (message,) = services.receive(url)
    check_failure(json.loads(json.loads(message["Body"])["Message"]), "to-sns", request_id)
    (dead,) = services.receive(dead_url)
    notification = json.loads(dead["Body"])
    assert notification["Message"] == '{"fail": true}'
    assert notification["MessageAttributes"]["RequestID"] == {"Type": "String", "Value": request_id}


def test_a_bus_hears_of_a_failure(services: Services, send: Callable[..., str]) -> None:
    url, arn = services.bus("results")
    request_id = send("to-bus", {"fail": True}, failure=arn)
    (message,) = services.receive(url)
    event = json.loads(message["Body"])
    assert (event["source"], event["detail-type"]) == ("lambda", "Lambda Function Invocation Result - Failure")
    assert event["resources"] == [arn, function_arn("to-bus")]
    check_failure(event["detail"], "to-bus", request_id)


def test_a_bucket_gets_a_failure_under_its_function_and_day(services: Services, send: Callable[..., str]) -> None:
    services.s3.create_bucket(Bucket="records")
    request_id = send("to-s3", {"fail": True}, failure="arn:aws:s3:::records")
    until(lambda: services.s3.list_objects_v2(Bucket="records")["KeyCount"] == 1)
    (found,) = services.s3.list_objects_v2(Bucket="records")["Contents"]
    matched = re.fullmatch(
        r"aws/lambda/async/to-s3/(\d{4}/\d\d/\d\d)/(\d{4}-\d\d-\d\d)T\d\d\.\d\d\.\d\d-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        found["Key"],
    )
    assert matched is not None
    assert matched[1].replace("/", "-") == matched[2]
    body = services.s3.get_object(Bucket="records", Key=found["Key"])["Body"]
    record = json.loads(body.read())
    body.close()
    assert datetime.fromisoformat(record["timestamp"]).strftime("%Y-%m-%d") == matched[2]
    check_failure(record, "to-s3", request_id)


def test_another_function_is_invoked_with_the_record(gateway: KappaDev, services: Services, send: Callable[..., str]) -> None:
    url, arn = services.queue("chained")
    gateway.create_function("next", {"app.py": APP})
    gateway.client().put_function_event_invoke_config(FunctionName="next", DestinationConfig={"OnSuccess": {"Destination": arn}})
    request_id = send("first", {"n": 1}, success=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:next")
    (message,) = services.receive(url)
    second = json.loads(message["Body"])
    assert second["requestContext"]["functionArn"] == function_arn("next")
    assert second["requestPayload"]["requestContext"]["requestId"] == request_id
    assert second["requestPayload"]["responsePayload"] == {"echo": {"n": 1}}


def test_without_reserved_concurrency_the_record_has_no_response(
    gateway: KappaDev, services: Services, send: Callable[..., str]
) -> None:
    url, arn = services.queue("zero")
    gateway.create_function("none-reserved", {"app.py": APP})
    client = gateway.client()
    client.put_function_concurrency(FunctionName="none-reserved", ReservedConcurrentExecutions=0)
    client.put_function_event_invoke_config(FunctionName="none-reserved", DestinationConfig={"OnFailure": {"Destination": arn}})
    client.invoke(FunctionName="none-reserved", InvocationType="Event", Payload=b'{"n": 1}')
    (message,) = services.receive(url)
    record = json.loads(message["Body"])
    assert list(record) == ["version", "timestamp", "requestContext", "requestPayload"]
    assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"


def test_a_long_error_message_is_cut_for_the_dead_letter_queue(services: Services, send: Callable[..., str]) -> None:
    dead_url, dead_arn = services.queue("long")
    send("long", {"fail": True, "long": 3000}, DeadLetterConfig={"TargetArn": dead_arn})
    (dead,) = services.receive(dead_url)
    assert dead["MessageAttributes"]["ErrorMessage"]["StringValue"] == "no" * 512


def test_a_destination_that_appears_late_is_told_and_the_function_did_not_run_again(
    services: Services, send: Callable[..., str]
) -> None:
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:late"
    request_id = send("early", {"n": 1}, success=arn)
    until(lambda: request_id is not None)
    url, _ = services.queue("late")
    (message,) = services.receive(url)
    record = json.loads(message["Body"])
    assert (record["requestContext"]["requestId"], record["requestContext"]["approximateInvokeCount"]) == (request_id, 1)


@pytest.mark.parametrize(
    ("arn", "reason"),
    [
        pytest.param(f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue.fifo", "FIFO", id="a FIFO queue"),
        pytest.param(f"arn:aws:sqs:{REGION}:{ACCOUNT}:nowhere", "NonExistentQueue|does not exist", id="no such queue"),
    ],
)
def test_what_cannot_be_delivered_stays_as_a_dead_letter(tmp_path: Path, services: Services, arn: str, reason: str) -> None:
    settings = QUICK | {"KAPPA_ENDPOINT_URL": services.endpoint, "KAPPA_ASYNC_DELIVERY_DELAYS": "0.1"}
    with kappa_dev(tmp_path / "data", settings=settings) as kappa:
        kappa.create_function("unheard", {"app.py": APP}, DeadLetterConfig={"TargetArn": arn})
        kappa.client().invoke(FunctionName="unheard", InvocationType="Event", Payload=b'{"fail": true}')
        until(lambda: "could not be delivered" in kappa.output)
        (line,) = [line for line in kappa.output.splitlines() if "could not be delivered" in line]
        assert re.search(reason, line)


def test_without_an_endpoint_nothing_is_sent_anywhere_and_the_log_says_what_to_set(tmp_path: Path) -> None:
    with kappa_dev(tmp_path / "data", settings=QUICK) as kappa:
        kappa.create_function("alone", {"app.py": APP}, DeadLetterConfig={"TargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"})
        kappa.client().invoke(FunctionName="alone", InvocationType="Event", Payload=b'{"fail": true}')
        until(lambda: "KAPPA_ENDPOINT_URL_SQS" in kappa.output)
