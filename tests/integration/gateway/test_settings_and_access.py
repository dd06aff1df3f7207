"""Who may call, as whom, and what the settings of `kappa dev` change; what users look at: logs, metrics, pages, exit codes."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import botocore.exceptions
import pytest

from functions_by_boto3 import create, invoke
from kappa_dev import SCRIPTS, KappaDev, kappa_dev, zip_of
from kappa_gateway.auth.signing import sign
from moto_s3 import moto_s3

FUNCTIONS = "/2015-03-31/functions"
KEYS = ("AKIDOFTHETEST", "a/secret+of=the test")
DEVELOPER = {
    "AWS_ACCESS_KEY_ID": "AKIAOFTHEDEVELOPER",
    "AWS_SECRET_ACCESS_KEY": "the developer's own secret",
    "AWS_SESSION_TOKEN": "the developer's own token",
    "AWS_PROFILE": "developer",
}
ECHO = {"app.py": "def handler(event, context):\n    return event\n"}
VARIABLES = {"app.py": "import os\ndef handler(event, context):\n    return dict(os.environ)\n"}
CALLER = {
    "app.py": """
import boto3, json
def handler(event, context):
    client = boto3.client("lambda")
    names = [each["FunctionName"] for each in client.list_functions()["Functions"]]
    answer = client.invoke(FunctionName=event["call"], Payload=json.dumps(event["with"]))
    return {"functions": names, "answer": json.load(answer["Payload"])}
"""
}


def send(
    kappa: KappaDev, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, str, bytes]:
    """Status, error type and body of a request as it is, signed by nobody."""
    connection = http.client.HTTPConnection(urlsplit(kappa.endpoint).netloc, timeout=20)
    try:
        connection.request(method, target, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.getheader("x-amzn-errortype") or "", answer.read()
    finally:
        connection.close()


def error_of(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call()
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], caught.value.response["Error"]["Code"]


def command(kappa: KappaDev, *arguments: str, keys: tuple[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `kappa ...` against the gateway, as the README has it: the endpoint in a variable."""
    environment = kappa.environment() | {"AWS_ENDPOINT_URL_LAMBDA": kappa.endpoint}
    if keys:
        environment |= {"AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1]}
    return subprocess.run(
        [SCRIPTS / "kappa", *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


# -- keys are required ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KappaDev]:
    """A gateway with keys, started by a developer who has AWS credentials, with access lines."""
    settings = {
        "KAPPA_ACCESS_KEY_ID": KEYS[0],
        "KAPPA_SECRET_ACCESS_KEY": KEYS[1],
        "KAPPA_ACCESS_LOG": "true",
        "KAPPA_ENDPOINT_URL": "http://127.0.0.1:4566",
        "KAPPA_ENDPOINT_URL_S3": "http://127.0.0.1:5000",
        **DEVELOPER,
    }
    with kappa_dev(tmp_path_factory.mktemp("guarded") / "data", settings=settings) as running:
        client = running.client(keys=KEYS)
        for name, code in (("echo", ECHO), ("variables", VARIABLES), ("caller", CALLER)):
            create(client, name, code)
        yield running


def signed(kappa: KappaDev, method: str, target: str, body: bytes = b"", *, now: float | None = None) -> dict[str, str]:
    """The headers of a request that KEYS sign."""
    headers = {"Host": urlsplit(kappa.endpoint).netloc}
    return headers | sign(
        method=method,
        target=target,
        headers=headers,
        body=body,
        access_key_id=KEYS[0],
        secret=KEYS[1],
        session_token=None,
        region="us-east-1",
        now=time.time() if now is None else now,
    )


OPEN_TO_NOBODY = [
    pytest.param("GET", FUNCTIONS, id="control plane"),
    pytest.param("POST", f"{FUNCTIONS}/echo/invocations", id="invoke"),
    pytest.param("GET", "/_kappa/logs/echo", id="logs"),
]


@pytest.mark.parametrize(("method", "target"), OPEN_TO_NOBODY)
def test_an_unsigned_request_is_refused(guarded: KappaDev, method: str, target: str) -> None:
    assert send(guarded, method, target, b"{}")[:2] == (403, "MissingAuthenticationTokenException")


@pytest.mark.parametrize(("method", "target"), OPEN_TO_NOBODY)
def test_a_request_signed_an_hour_ago_is_refused(guarded: KappaDev, method: str, target: str) -> None:
    headers = signed(guarded, method, target, now=time.time() - 3600)
    status, code, body = send(guarded, method, target, headers=headers)
    assert (status, code) == (403, "InvalidSignatureException")
    assert b"Signature expired" in body


@pytest.mark.parametrize(("method", "target"), OPEN_TO_NOBODY)
def test_a_request_that_was_changed_on_its_way_is_refused(guarded: KappaDev, method: str, target: str) -> None:
    headers = signed(guarded, method, target)
    assert send(guarded, method, f"{target}?Qualifier=1", headers=headers)[:2] == (403, "InvalidSignatureException")
    assert send(guarded, method, target, b"1", headers=headers)[:2] == (403, "InvalidSignatureException") or method == "GET"


def test_the_wrong_secret_and_an_unknown_key_are_told_apart(guarded: KappaDev) -> None:
    wrong, unknown = guarded.client(keys=(KEYS[0], "wrong")), guarded.client(keys=("UNKNOWN", KEYS[1]))
    for call in (wrong.list_functions, lambda: wrong.invoke(FunctionName="echo")):
        assert error_of(call) == (403, "InvalidSignatureException")
    for call in (unknown.list_functions, lambda: unknown.invoke(FunctionName="echo")):
        assert error_of(call) == (403, "UnrecognizedClientException")


@pytest.mark.parametrize(("age", "expected"), [(0, 200), (120, 403)], ids=["in time", "expired"])
def test_a_presigned_request_works_until_it_expires(
    guarded: KappaDev, age: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = botocore.auth.get_current_datetime() - timedelta(seconds=age)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: then)
    request = botocore.awsrequest.AWSRequest("GET", f"{guarded.endpoint}{FUNCTIONS}")
    credentials = botocore.credentials.Credentials(*KEYS)
    botocore.auth.SigV4QueryAuth(credentials, "lambda", "us-east-1", expires=60).add_auth(request)
    assert send(guarded, "GET", request.url.removeprefix(guarded.endpoint))[0] == expected


def test_the_right_keys_work_with_boto3_the_cli_and_the_kappa_command(guarded: KappaDev) -> None:
    assert invoke(guarded.client(keys=KEYS), "echo", {"by": "boto3"}) == {"by": "boto3"}
    environment = guarded.environment() | {"AWS_ACCESS_KEY_ID": KEYS[0], "AWS_SECRET_ACCESS_KEY": KEYS[1]}
    listed = subprocess.run(
        [SCRIPTS / "aws", "--endpoint-url", guarded.endpoint, "lambda", "list-functions", "--query", "Functions[].FunctionName"],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert json.loads(listed.stdout) == ["caller", "echo", "variables"]
    invoked = command(guarded, "invoke", "echo", '{"by": "kappa"}', keys=KEYS)
    assert (invoked.returncode, json.loads(invoked.stdout)) == (0, {"by": "kappa"})
    assert "REPORT RequestId: " in invoked.stderr
    assert "echo" in command(guarded, "functions", keys=KEYS).stdout
    assert "REPORT RequestId: " in command(guarded, "logs", "echo", keys=KEYS).stdout


@pytest.mark.parametrize("arguments", [("invoke", "echo"), ("functions",), ("logs", "echo")], ids=lambda each: each[0])
def test_the_kappa_command_says_in_one_line_that_its_keys_are_wrong(guarded: KappaDev, arguments: tuple[str, ...]) -> None:
    ran = command(guarded, *arguments, keys=("UNKNOWN", "key"))
    assert ran.returncode == 1
    assert ran.stderr == "kappa: UnrecognizedClientException: The security token included in the request is invalid.\n"


def test_a_function_calls_kappa_with_the_keys_in_its_environment(guarded: KappaDev) -> None:
    answer = invoke(guarded.client(keys=KEYS), "caller", {"call": "echo", "with": {"a": 1}})
    assert answer == {"functions": ["caller", "echo", "variables"], "answer": {"a": 1}}


def test_session_keys_work_only_whole_and_unchanged(guarded: KappaDev) -> None:
    seen = invoke(guarded.client(keys=KEYS), "variables")
    keys, token = (seen["AWS_ACCESS_KEY_ID"], seen["AWS_SECRET_ACCESS_KEY"]), seen["AWS_SESSION_TOKEN"]
    assert invoke(guarded.client(keys=keys, session_token=token), "echo", 1) == 1
    prefix, payload, mac = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))) | {"account": "111111111111"}
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    changed = ("B" if mac.startswith("A") else "A") + mac[1:]
    for other in (None, f"{prefix}.{forged}.{mac}", f"{prefix}.{payload}.{changed}", "made-up"):
        client = guarded.client(keys=keys, session_token=other)
        assert error_of(client.list_functions) == (403, "UnrecognizedClientException")


def test_functions_see_configured_endpoints_and_nothing_of_the_developers_credentials(guarded: KappaDev) -> None:
    seen = invoke(guarded.client(keys=KEYS), "variables")
    assert seen["AWS_ENDPOINT_URL_LAMBDA"] == guarded.endpoint
    assert seen["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert seen["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:5000"
    assert set(seen.values()).isdisjoint([*DEVELOPER.values(), *KEYS])
    assert "AWS_PROFILE" not in seen
    assert not [name for name in seen if name.startswith("KAPPA_")]


def test_functions_get_the_developers_credentials_where_told_so(start_kappa: Callable[..., KappaDev]) -> None:
    kappa = start_kappa(KAPPA_PASS_AWS_CREDENTIALS="true", **DEVELOPER)
    create(kappa.client(), "variables", VARIABLES)
    seen = invoke(kappa.client(), "variables")
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    assert [seen[name] for name in names] == [DEVELOPER[name] for name in names]


def test_code_downloads_by_its_link_alone(guarded: KappaDev) -> None:
    found = guarded.client(keys=KEYS).get_function(FunctionName="echo")
    with urllib.request.urlopen(found["Code"]["Location"], timeout=10) as response:
        archive = response.read()
    assert base64.b64encode(hashlib.sha256(archive).digest()).decode() == found["Configuration"]["CodeSha256"]
    target = found["Code"]["Location"].removeprefix(guarded.endpoint)
    assert send(guarded, "GET", target[:-2] + ("00" if target[-2:] != "00" else "11"))[0] == 403
    assert send(guarded, "GET", re.sub(r"expires=\d+", "expires=99999999999", target))[0] == 403


def test_access_lines_are_json_and_one_for_each_request(guarded: KappaDev) -> None:
    expected = ("/2015-03-31/no-such-path", f"{FUNCTIONS}/echo/invocations")
    seen = len(guarded.output)
    status, _, _ = send(guarded, "GET", f"{expected[0]}?secret=1")
    answer = guarded.client(keys=KEYS).invoke(FunctionName="echo")

    def said() -> list[dict[str, Any]]:
        """A line is written when the answer has been sent, so it may come a little later than that."""
        every = [json.loads(line) for line in guarded.output[seen:].splitlines() if line.startswith("{")]
        return [line for line in every if line["path"] in expected]

    deadline = time.monotonic() + 10
    while len(said()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    lines = said()
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", expected[0], status),
        ("POST", expected[1], 200),
    ]
    assert lines[1]["request_id"] == answer["ResponseMetadata"]["RequestId"]
    assert lines[1]["duration_ms"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[1]["time"])


# -- accounts and regions ---------------------------------------------------------------------------------------------------


def test_accounts_and_regions_do_not_see_each_other(kappa: KappaDev) -> None:
    clients = {
        "default": kappa.client(),
        "other account": kappa.client(keys=("123456789012", "any")),
        "other region": kappa.client(region="eu-west-1"),
    }
    for where, client in clients.items():
        described = create(
            client, "isolated", {"app.py": f"def handler(event, context):\n    return {where!r}, context.aws_request_id\n"}
        )
        region, account = described["FunctionArn"].split(":")[3:5]
        assert region == ("eu-west-1" if where == "other region" else "us-east-1")
        assert account == ("123456789012" if where == "other account" else "000000000000")
    for where, client in clients.items():
        assert invoke(client, "isolated")[0] == where
        assert client.get_account_settings()["AccountUsage"]["FunctionCount"] == 1
    clients["other account"].delete_function(FunctionName="isolated")
    assert error_of(lambda: invoke(clients["other account"], "isolated")) == (404, "ResourceNotFoundException")
    assert invoke(clients["default"], "isolated")[0] == "default"
    group = command(kappa, "logs", "isolated", keys=("123456789012", "any")).stdout
    assert group.count("START RequestId: ") == 1
    clients["default"].delete_function(FunctionName="isolated")


def test_a_function_calls_back_into_its_own_account_and_region(kappa: KappaDev) -> None:
    client = kappa.client(keys=("210987654321", "any"), region="ap-south-1")
    create(client, "echo", ECHO)
    create(client, "caller", CALLER)
    assert invoke(client, "caller", {"call": "echo", "with": 7}) == {"functions": ["caller", "echo"], "answer": 7}


# -- looking at it ----------------------------------------------------------------------------------------------------------


def metric(kappa: KappaDev, name: str, **labels: str) -> float:
    """The sum over all series of a metric that have these labels; 0 where there is none."""
    text = send(kappa, "GET", "/metrics")[2].decode()
    found = re.findall(rf"^{name}(?:\{{(.*?)\}})? (\S+)$", text, re.MULTILINE)
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    return sum(float(value) for series, value in found if wanted <= set(series.split(",")))


def test_metrics_count_outcomes_cold_starts_and_requests_under_their_documented_names(kappa: KappaDev) -> None:
    client = kappa.client()
    create(
        client,
        "counted",
        {"app.py": "import time\ndef handler(event, context):\n    time.sleep(event['s'])\n    return event['x']\n"},
    )
    for _ in range(3):
        invoke(client, "counted", {"s": 0, "x": 1})
    client.invoke(FunctionName="counted", Payload=b'{"s": 0}')
    client.put_function_concurrency(FunctionName="counted", ReservedConcurrentExecutions=0)
    assert error_of(lambda: client.invoke(FunctionName="counted")) == (429, "TooManyRequestsException")
    assert error_of(lambda: client.get_function(FunctionName="uncounted"))[0] == 404
    labels = {"account": "000000000000", "function": "counted"}
    invocations = {
        code: metric(kappa, "kappa_gateway_invocations_total", code_class=code, **labels)
        for code in ("ok", "function_error", "throttled", "client_error", "platform_error")
    }
    assert invocations == {"ok": 3, "function_error": 1, "throttled": 1, "client_error": 0, "platform_error": 0}
    assert metric(kappa, "kappa_gateway_invocation_duration_seconds_count", **labels) == 5
    assert metric(kappa, "kappa_gateway_cold_starts_total", **labels) == 1
    assert metric(kappa, "kappa_gateway_api_requests_total", operation="GetFunction", status="404") == 1
    assert metric(kappa, "kappa_gateway_inflight") == 0
    documented = (Path(__file__).parents[3] / "docs/guide/logs.md").read_text()
    exposed = send(kappa, "GET", "/metrics")[2].decode()
    names = re.findall(r"^\| `(kappa_\w+)`", documented, re.MULTILINE)
    assert names
    assert [name for name in names if f"# TYPE {name.removesuffix('_total')}" not in exposed] == []


def test_health_and_the_apis_own_pages(kappa: KappaDev) -> None:
    assert send(kappa, "GET", "/healthz") == (200, "", b"ok\n")
    status, _, page = send(kappa, "GET", "/docs")
    assert status == 200
    assert b"swagger" in page
    status, _, document = send(kappa, "GET", "/openapi.json")
    assert status == 200
    assert json.loads(document)["paths"]["/2015-03-31/functions"]["post"]["operationId"] == "CreateFunction"


def test_coverage_lists_every_operation_of_the_model_and_is_true(kappa: KappaDev) -> None:
    ran = command(kappa, "api", "coverage", "--output", "json")
    listed = {row["operation"]: row["implemented"] for row in json.loads(ran.stdout)}
    client = boto3.session.Session().client("lambda", region_name="us-east-1", endpoint_url=kappa.endpoint)
    assert sorted(listed) == sorted(client.meta.service_model.operation_names)
    client.close()
    assert listed["CreateFunction"]
    assert listed["Invoke"]
    assert not listed["CreateEventSourceMapping"]
    assert error_of(kappa.client().list_event_source_mappings) == (501, "NotImplementedException")


@pytest.mark.parametrize(
    ("arguments", "code", "printed"),
    [
        pytest.param(["logging", '{"x": 1}'], 0, '{"x": 1}\n', id="result"),
        pytest.param(["logging", '{"raise": 1}'], 2, "ValueError", id="function error"),
        pytest.param(["nobody"], 1, "", id="unknown function"),
        pytest.param(["logging", "{not json"], 1, "", id="payload that is not JSON"),
        pytest.param(["logging", "@/no/such/file"], 1, "", id="no such file"),
        pytest.param(["logging", "--qualifier", "9"], 1, "", id="unknown version"),
        pytest.param(["logging", "--endpoint-url", "http://127.0.0.1:1"], 1, "", id="no gateway"),
    ],
)
def test_kappa_invoke_tells_by_its_exit_code(
    kappa: KappaDev, logging: str, arguments: list[str], code: int, printed: str
) -> None:
    ran = command(kappa, "invoke", *arguments)
    assert ran.returncode == code, ran.stderr
    assert printed in ran.stdout
    assert "Traceback" not in ran.stderr or code == 2
    if code == 1:
        assert ran.stderr.startswith("kappa: ")
        assert ran.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def logging(kappa: KappaDev) -> str:
    source = "def handler(event, context):\n    print('said', event)\n    if 'raise' in event: raise ValueError('no')\n    return event\n"
    kappa.create_function("logging", {"app.py": source})
    return "logging"


def test_kappa_logs_follows_what_is_logged(kappa: KappaDev, logging: str) -> None:
    environment = kappa.environment() | {"AWS_ENDPOINT_URL_LAMBDA": kappa.endpoint}
    with subprocess.Popen(
        [SCRIPTS / "kappa", "logs", logging, "-f", "--since", "0s"], env=environment, stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        try:
            read: list[str] = []
            arrived = threading.Condition()

            def collect(lines: Any) -> None:
                for line in lines:
                    with arrived:
                        read.append(line)
                        arrived.notify_all()

            reader = threading.Thread(target=collect, args=(following.stdout,))
            reader.start()
            for number in range(3):
                deadline = time.monotonic() + 15
                with arrived:
                    # The first one again and again: the follower may still be starting.
                    while f"said {{'n': {number}}}\n" not in read and time.monotonic() < deadline:
                        invoke(kappa.client(), logging, {"n": number})
                        arrived.wait(0.5)
                    assert f"said {{'n': {number}}}\n" in read
        finally:
            following.terminate()
            following.wait()
    reader.join()


def test_kappa_logs_ends_quietly_when_its_reader_has_seen_enough(kappa: KappaDev, logging: str) -> None:
    for number in range(3):
        invoke(kappa.client(), logging, {"n": number, "long": "x" * 200_000})
    environment = kappa.environment() | {"AWS_ENDPOINT_URL_LAMBDA": kappa.endpoint}
    ran = subprocess.run(
        ["sh", "-c", "kappa logs logging | head -n 1"], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert ran.stdout.count("\n") == 1
    assert ran.stderr == ""


# -- states and runtimes ----------------------------------------------------------------------------------------------------


def test_strict_states_answer_awss_409_until_the_waiter_is_through(start_kappa: Callable[..., KappaDev]) -> None:
    client = start_kappa(KAPPA_STRICT_STATES="true").client()
    one, two = ({"app.py": f"def handler(event, context):\n    return {number}\n"} for number in (1, 2))
    update: Callable[..., Any] = partial(client.update_function_code, ZipFile=zip_of(two))
    # One function for each call: half a second is short on a busy machine.
    calls: dict[str, Callable[..., Any]] = {
        "code": update,
        "configuration": partial(client.update_function_configuration, Timeout=4),
        "publish": client.publish_version,
        "invoke": client.invoke,
    }
    wait = {"Delay": 0, "MaxAttempts": 1000}
    for name, call in calls.items():
        assert create(client, name, one)["State"] == "Pending"
        with pytest.raises(client.exceptions.ResourceConflictException, match="currently in the following state: Pending"):
            call(FunctionName=name)
    for name, call in calls.items():
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=wait)
        if name == "invoke":
            assert invoke(client, name) == 1  # so that no cold start falls into the half second
        assert update(FunctionName=name)["LastUpdateStatus"] == "InProgress"
        if name == "invoke":
            answered = invoke(client, name)
            settled_by_now = client.get_function_configuration(FunctionName=name)["LastUpdateStatus"] == "Successful"
            assert answered == 1 or settled_by_now  # the code before goes on serving
            continue
        with pytest.raises(client.exceptions.ResourceConflictException, match="An update is in progress for resource: arn:aws:"):
            call(FunctionName=name)
    client.get_waiter("function_updated_v2").wait(FunctionName="invoke", WaiterConfig=wait)
    assert invoke(client, "invoke") == 2


ABSENT = "python3.14" if sys.version_info[:2] != (3, 14) else "python3.13"


def test_a_runtime_that_is_not_there_says_so_and_the_nearest_one_runs_where_allowed(start_kappa: Callable[..., KappaDev]) -> None:
    code = {"app.py": "import sys\ndef handler(event, context):\n    return list(sys.version_info[:2])\n"}
    path = {"PATH": f"{SCRIPTS}:/usr/bin:/bin"}
    for settings in ({}, {"KAPPA_NEAREST_RUNTIME": "true"}):
        client = start_kappa(**settings, **path).client()
        create(client, "absent", code, Runtime=ABSENT)
        if settings:
            assert invoke(client, "absent")[0] == 3
            continue
        assert error_of(partial(client.invoke, FunctionName="absent")) == (502, "InvalidRuntimeException")
        described = client.get_function_configuration(FunctionName="absent")
        assert (described["State"], described["StateReasonCode"]) == ("Failed", "InvalidRuntime")
        assert f"{ABSENT} is not installed" in described["StateReason"]
        assert "KAPPA_NEAREST_RUNTIME" in described["StateReason"]


# -- S3 ---------------------------------------------------------------------------------------------------------------------


def test_code_comes_from_any_s3(start_kappa: Callable[..., KappaDev]) -> None:
    with moto_s3() as endpoint:
        config = botocore.config.Config(s3={"addressing_style": "path"})
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        s3 = boto3.session.Session().client("s3", endpoint_url=endpoint, config=config, **keys)
        s3.create_bucket(Bucket="code")
        s3.put_object(Bucket="code", Key="a folder/ü.zip", Body=zip_of(ECHO))
        s3.close()
        client = start_kappa(KAPPA_ENDPOINT_URL_S3=endpoint).client()
        create(client, "from-s3", {}, Code={"S3Bucket": "code", "S3Key": "a folder/ü.zip"})
        assert invoke(client, "from-s3", {"a": 1}) == {"a": 1}
        with pytest.raises(client.exceptions.InvalidParameterValueException) as caught:
            create(client, "missing", {}, Code={"S3Bucket": "code", "S3Key": "nothing"})
        assert caught.value.response["Error"]["Message"] == (
            "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."
        )
    status = error_of(lambda: create(client, "gone", {}, Code={"S3Bucket": "code", "S3Key": "a folder/ü.zip"}))
    assert status == (500, "ServiceException")
    assert [each["FunctionName"] for each in client.list_functions()["Functions"]] == ["from-s3"]
