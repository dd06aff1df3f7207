"""What someone who knows Lambda types with the real AWS CLI, in one go, as in the outcome of the embedded gateway."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kappa_dev import ROLE, RUNTIME, KappaDev, zip_of

HANDLER = """
import json, os, sys
def handler(event, context):
    print("got", json.dumps(event))
    return {
        "event": event,
        "version": context.function_version,
        "arn": context.invoked_function_arn,
        "greeting": os.environ.get("GREETING"),
    }
"""


@pytest.fixture(scope="module")
def deployed(kappa: KappaDev, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A function created from a zip by the CLI, Active, with a published version 1. Tests that change it use another one."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "code.zip").write_bytes(zip_of({"app.py": HANDLER}))
    created = kappa.aws(
        "lambda", "create-function", "--function-name", "typed", "--runtime", RUNTIME, "--handler", "app.handler",
        "--role", ROLE, "--zip-file", f"fileb://{folder}/code.zip", "--environment", "Variables={GREETING=hello}",
    )  # fmt: skip
    assert created["State"] == "Pending"
    assert created["CodeSha256"] == base64.b64encode(hashlib.sha256((folder / "code.zip").read_bytes()).digest()).decode()
    kappa.aws("lambda", "wait", "function-active-v2", "--function-name", "typed")
    assert kappa.aws("lambda", "publish-version", "--function-name", "typed")["Version"] == "1"
    return "typed"


def invoke(kappa: KappaDev, folder: Path, name: str, *arguments: str, payload: Any = None) -> tuple[dict[str, Any], Any]:
    """`aws lambda invoke`: what it prints and what the function returned."""
    sent = ("--payload", json.dumps(payload)) if payload is not None else ()
    answer = kappa.aws("lambda", "invoke", "--function-name", name, *sent, *arguments, str(folder / "out.json"))
    written = (folder / "out.json").read_text()
    return answer, json.loads(written) if written else None


def test_invoke_answers_with_the_handlers_result_and_the_executed_version(kappa: KappaDev, deployed: str, tmp_path: Path) -> None:
    answer, result = invoke(kappa, tmp_path, deployed, payload={"a": 1})
    assert answer == {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
    assert result["event"] == {"a": 1}
    assert result["greeting"] == "hello"


def test_log_type_tail_brings_the_lines_of_this_invocation(kappa: KappaDev, deployed: str, tmp_path: Path) -> None:
    answer, _ = invoke(kappa, tmp_path, deployed, "--log-type", "Tail", payload={"b": 2})
    lines = base64.b64decode(answer["LogResult"]).decode().splitlines()
    assert lines[0].startswith("START RequestId: ")
    assert 'got {"b": 2}' in lines
    assert lines[-1].startswith("REPORT RequestId: ")


def test_a_dry_run_runs_nothing(kappa: KappaDev, deployed: str, tmp_path: Path) -> None:
    answer, result = invoke(kappa, tmp_path, deployed, "--invocation-type", "DryRun")
    assert answer == {"StatusCode": 204}
    assert result is None


def test_versions_aliases_and_arns_lead_to_what_they_name(kappa: KappaDev, deployed: str, tmp_path: Path) -> None:
    arn = f"arn:aws:lambda:us-east-1:000000000000:function:{deployed}"
    kappa.aws("lambda", "create-alias", "--function-name", deployed, "--name", "live", "--function-version", "1")
    for name, arguments, version, seen in [
        (deployed, ("--qualifier", "1"), "1", f"{arn}:1"),
        (deployed, ("--qualifier", "live"), "1", f"{arn}:live"),
        (f"{deployed}:live", (), "1", f"{arn}:live"),
        (arn, (), "$LATEST", arn),
        (f"{arn}:1", (), "1", f"{arn}:1"),
        (f"000000000000:function:{deployed}", (), "$LATEST", arn),
    ]:
        answer, result = invoke(kappa, tmp_path, name, *arguments, payload={})
        assert (answer["ExecutedVersion"], result["version"], result["arn"]) == (version, version, seen)


def test_new_code_and_a_new_configuration_serve_after_the_waiter(kappa: KappaDev, tmp_path: Path) -> None:
    kappa.create_function("renewed", {"app.py": HANDLER}, Environment={"Variables": {"GREETING": "hello"}}, Publish=True)
    (tmp_path / "new.zip").write_bytes(zip_of({"app.py": HANDLER.replace('"event": event', '"event": "new code"')}))
    kappa.aws("lambda", "update-function-code", "--function-name", "renewed", "--zip-file", f"fileb://{tmp_path}/new.zip")
    kappa.aws("lambda", "wait", "function-updated-v2", "--function-name", "renewed")
    kappa.aws(
        "lambda", "update-function-configuration", "--function-name", "renewed", "--environment", "Variables={GREETING=hi}",
        "--timeout", "7", "--memory-size", "256",
    )  # fmt: skip
    kappa.aws("lambda", "wait", "function-updated-v2", "--function-name", "renewed")
    _, result = invoke(kappa, tmp_path, "renewed", payload={})
    assert (result["event"], result["greeting"]) == ("new code", "hi")
    _, old = invoke(kappa, tmp_path, "renewed:1", payload={})
    assert (old["event"], old["greeting"]) == ({}, "hello")
    described = kappa.aws("lambda", "get-function-configuration", "--function-name", "renewed")
    assert (described["Timeout"], described["MemorySize"]) == (7, 256)


def test_an_alias_with_weights_sends_a_share_to_the_other_version(kappa: KappaDev) -> None:
    kappa.create_function("weighed", {"app.py": HANDLER}, Publish=True)
    client = kappa.client()
    client.update_function_code(
        FunctionName="weighed", ZipFile=zip_of({"app.py": "def handler(*_):\n    return 2\n"}), Publish=True
    )
    kappa.aws(
        "lambda", "create-alias", "--function-name", "weighed", "--name", "canary", "--function-version", "1",
        "--routing-config", "AdditionalVersionWeights={2=0.5}",
    )  # fmt: skip
    seen = {client.invoke(FunctionName="weighed", Qualifier="canary")["ExecutedVersion"] for _ in range(40)}
    assert seen == {"1", "2"}


def test_a_function_imports_from_its_layer(kappa: KappaDev, tmp_path: Path) -> None:
    (tmp_path / "layer.zip").write_bytes(zip_of({"python/tools.py": "WORD = 'from the layer'\n"}))
    layer = kappa.aws("lambda", "publish-layer-version", "--layer-name", "tools", "--zip-file", f"fileb://{tmp_path}/layer.zip")
    code = "import tools, os\ndef handler(event, context):\n    return [tools.WORD, os.path.exists('/opt') ]\n"
    kappa.create_function("layered", {"app.py": code}, Layers=[layer["LayerVersionArn"]])
    _, result = invoke(kappa, tmp_path, "layered")
    assert result[0] == "from the layer"


def test_reserved_concurrency_is_shown_and_taken_away(kappa: KappaDev, deployed: str) -> None:
    kappa.aws("lambda", "put-function-concurrency", "--function-name", deployed, "--reserved-concurrent-executions", "5")
    assert kappa.aws("lambda", "get-function", "--function-name", deployed)["Concurrency"] == {"ReservedConcurrentExecutions": 5}
    kappa.aws("lambda", "delete-function-concurrency", "--function-name", deployed)
    assert "Concurrency" not in kappa.aws("lambda", "get-function", "--function-name", deployed)


def test_the_code_link_downloads_what_was_uploaded(kappa: KappaDev, tmp_path: Path) -> None:
    archive = zip_of({"app.py": "def handler(event, context):\n    return 1\n"})
    client = kappa.client()
    client.create_function(FunctionName="download", Runtime=RUNTIME, Handler="app.handler", Role=ROLE, Code={"ZipFile": archive})
    location = kappa.aws("lambda", "get-function", "--function-name", "download")["Code"]["Location"]
    with urllib.request.urlopen(location) as answer:
        downloaded = answer.read()
    assert downloaded == archive
    assert zipfile.ZipFile(io.BytesIO(downloaded)).namelist() == ["app.py"]


def test_a_deleted_function_is_gone_from_the_list_and_for_invokes(kappa: KappaDev) -> None:
    kappa.create_function("shortlived", {"app.py": "def handler(event, context):\n    return 1\n"})
    names = [one["FunctionName"] for one in kappa.aws("lambda", "list-functions")["Functions"]]
    assert "shortlived" in names
    kappa.aws("lambda", "delete-function", "--function-name", "shortlived")
    names = [one["FunctionName"] for one in kappa.aws("lambda", "list-functions")["Functions"]]
    assert "shortlived" not in names
    client = kappa.client()
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="Function not found"):
        client.invoke(FunctionName="shortlived")
