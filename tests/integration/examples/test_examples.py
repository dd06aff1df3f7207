"""Every example does what its README says: its commands run as they are written, against a real `kappa dev`.

The AWS CLI deploys and invokes; what the function answered is read from the files that the commands leave.
"""

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kappa_dev import RUNTIME, KappaDev, kappa_dev
from moto_s3 import moto_s3
from readme_commands import run_readme

EXAMPLES = Path(__file__).parents[3] / "examples"
ENDPOINT = r"http://127\.0\.0\.1:9000"
S3_ENDPOINT = r"http://127\.0\.0\.1:5000"
GENERATED = ("package", "node_modules", "function.zip", "answer.json", "thumbnail.jpg", "bootstrap.exe")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with moto_s3() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def gateway(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KappaDev]:
    with kappa_dev(tmp_path_factory.mktemp("examples") / "data", settings={"KAPPA_ENDPOINT_URL_S3": s3}) as running:
        yield running


@pytest.fixture(scope="module")
def run_example(gateway: KappaDev, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Copies an example, runs its README there, once, and gives the folder with what the commands left."""
    left: dict[str, Path] = {}

    def run(name: str, **replace: str) -> Path:
        if name not in left:
            folder = tmp_path_factory.mktemp(name) / name
            shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns(*GENERATED))
            adapted = {ENDPOINT: gateway.endpoint, S3_ENDPOINT: s3, r"python3\.11": RUNTIME} | replace
            printed = run_readme(folder / "README.md", folder=folder, environment=gateway.environment(), replace=adapted)
            (folder / "printed.txt").write_text(printed)
            left[name] = folder
        return left[name]

    return run


def answer_in(folder: Path) -> Any:
    return json.loads((folder / "answer.json").read_bytes())


def need(*commands: str) -> None:
    for command in commands:
        found = shutil.which(command)
        if found is None or subprocess.run([found, "--help"], capture_output=True, check=False).returncode == 127:
            pytest.skip(f"no {command} on PATH")


def test_the_thumbnailer_scales_a_real_jpeg_with_the_pillow_in_its_zip(run_example: Callable[..., Path]) -> None:
    folder = run_example("thumbnailer")

    answer = answer_in(folder)
    jpeg = (folder / "thumbnail.jpg").read_bytes()
    # 1200 x 800 with the EXIF note to turn it: upright it is higher than wide.
    assert (answer["width"], answer["height"]) == (107, 160)
    assert jpeg == base64.b64decode(answer["image"])
    assert jpeg.startswith(b"\xff\xd8\xff")
    assert jpeg.endswith(b"\xff\xd9")
    assert len(jpeg) < len(json.loads((folder / "event.json").read_bytes())["image"])


def test_an_image_that_cannot_be_read_is_a_function_error_with_the_authors_words(
    run_example: Callable[..., Path], gateway: KappaDev
) -> None:
    run_example("thumbnailer")

    answer = gateway.client().invoke(FunctionName="thumbnailer", Payload=json.dumps({"image": "AAAA"}).encode())

    error = json.loads(answer["Payload"].read())
    assert answer["FunctionError"] == "Unhandled"
    assert error["errorType"] == "ValueError"
    assert error["errorMessage"] == "image is in no format that can be read"
    assert any("app.py" in line for line in error["stackTrace"])


@pytest.mark.node
def test_a_node_module_renders_with_its_dependency_from_npm(run_example: Callable[..., Path]) -> None:
    need("node", "npm")
    major = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.lstrip("v").split(".")[0]

    folder = run_example("node-markdown", **{r"nodejs20\.x": f"nodejs{major}.x"})

    answer = answer_in(folder)
    assert answer["headings"] == [{"depth": 1, "text": "Kappa"}, {"depth": 2, "text": "How"}]
    assert "<li>there</li>" in answer["html"]
    assert "<code>make dev</code>" in answer["html"]


def test_powertools_routes_logs_and_measures(run_example: Callable[..., Path]) -> None:
    folder = run_example("powertools-orders")

    answer = answer_in(folder)
    assert answer["statusCode"] == 201
    assert json.loads(answer["body"]) == {"cents": 2 * 450 + 510}
    lines = [json.loads(line) for line in (folder / "printed.txt").read_text().splitlines() if line.startswith('{"')]
    quoted = next(line for line in lines if line.get("message") == "quoted")
    assert quoted["correlation_id"] == "order-4711"
    assert quoted["function_name"] == "orders"
    assert quoted["cold_start"] is True
    assert any(line.get("Quoted") == [1.0] and "_aws" in line for line in lines)


def test_boto3_is_there_without_being_in_the_zip_and_talks_to_the_configured_s3(run_example: Callable[..., Path]) -> None:
    folder = run_example("boto3-word-count")

    answer = answer_in(folder)
    assert answer["result"] == "s3://texts/fox.txt.words.json"
    assert answer["words"] == 15
    assert answer["most"][0] == ["the", 3]
    assert json.dumps({"words": 15, "different": 12, "most": answer["most"]}) in (folder / "printed.txt").read_text()


def test_a_custom_runtime_in_shell_answers(run_example: Callable[..., Path]) -> None:
    need("curl", "sha256sum")

    folder = run_example("provided-shell")

    event = (folder / "event.json").read_bytes()
    assert answer_in(folder) == {"sha256": hashlib.sha256(event).hexdigest(), "bytes": len(event)}


def test_a_custom_runtime_that_reports_an_error_fails_the_invocation_and_lives_on(
    run_example: Callable[..., Path], gateway: KappaDev
) -> None:
    need("curl", "sha256sum")
    run_example("provided-shell")
    client = gateway.client()

    refused = client.invoke(FunctionName="digest", Payload=b"{}")
    answered = client.invoke(FunctionName="digest", Payload=b'{"a": 1}')

    assert refused["FunctionError"] == "Unhandled"
    assert json.loads(refused["Payload"].read())["errorType"] == "EmptyEvent"
    assert "FunctionError" not in answered
    assert json.loads(answered["Payload"].read())["bytes"] == 8


def test_a_go_executable_on_awss_own_library_answers(run_example: Callable[..., Path]) -> None:
    need("go")

    folder = run_example("provided-go")

    assert answer_in(folder) == {"count": 8, "mean": 5, "median": 4.5, "deviation": 2}
