"""Where a function's code is, what file its source text becomes, and when it has to be taken in."""

from __future__ import annotations

from typing import Any

import pytest

from kappa_core.rules.configuration import NO_CODE
from kappa_crds.code import ConfigMapCode, HttpsCode, Inline, S3Code, code_digest, code_due, code_of, code_source, inline_path
from served_objects import edited, function_manifest, served

ARCHIVE = {"sha256": "a" * 64, "size": 10, "unzippedSize": 20, "source": "inline"}


@pytest.mark.parametrize(
    ("runtime", "handler", "text", "path"),
    [
        ("python3.12", "app.handler", "", "app.py"),
        ("python3.12", "pkg/app.handler", "", "pkg/app.py"),
        ("python3.12", "pkg.app.handler", "", "pkg/app.py"),
        ("nodejs22.x", "index.handler", "exports.handler = async () => 1", "index.js"),
        ("nodejs22.x", "index.handler", "const a = 1\nexport const handler = async () => a", "index.mjs"),
        ("nodejs22.x", "index.handler", "import { a } from './a.js'", "index.mjs"),
        ("nodejs22.x", "src/index.a.b", "// export nothing", "src/index.js"),
        ("ruby3.4", "function.Handler.process", "", "function.rb"),
        ("provided.al2023", "anything", "#!/bin/sh", "bootstrap"),
    ],
)
def test_source_text_becomes_the_file_that_its_handler_is_looked_for_in(runtime: str, handler: str, text: str, path: str) -> None:
    assert inline_path(text, runtime=runtime, handler=handler) == path


def test_a_bootstrap_is_executable() -> None:
    assert code_source({"runtime": "provided", "handler": "x", "code": {"inline": "#!/bin/sh"}}) == Inline(
        path="bootstrap", text="#!/bin/sh", executable=True
    )


@pytest.mark.parametrize(
    ("code", "source"),
    [
        ({"configMap": {"name": "files"}}, ConfigMapCode(name="files", key=None)),
        ({"configMap": {"name": "files", "key": "code.zip"}}, ConfigMapCode(name="files", key="code.zip")),
        ({"s3Bucket": "bucket", "s3Key": "a/b.zip"}, S3Code(bucket="bucket", key="a/b.zip", version=None)),
        (
            {"https": {"url": "https://example.com/a.zip", "sha256": "b" * 64}},
            HttpsCode(url="https://example.com/a.zip", sha256="b" * 64),  # type: ignore[arg-type]
        ),
        ({"blob": ARCHIVE}, None),
        ({}, None),
    ],
)
def test_every_source_is_understood(code: dict[str, Any], source: object) -> None:
    assert code_source({"code": code}) == source
    assert code_source({"content": code}) == source  # of a Layer


def test_sources_are_told_apart_for_people() -> None:
    sources = [
        {"configMap": {"name": "files"}},
        {"configMap": {"name": "files", "key": "code.zip"}},
        {"s3Bucket": "bucket", "s3Key": "a/b.zip"},
        {"https": {"url": "https://example.com/a.zip", "sha256": "b" * 64}},
    ]
    found = [source.described for code in sources if (source := code_source({"code": code})) is not None]
    assert found == ["configmap:files", "configmap:files/code.zip", "s3://bucket/a/b.zip", "https://example.com/a.zip"]


def test_a_blob_is_the_code() -> None:
    obj = served(function_manifest(code={"blob": ARCHIVE}))
    assert code_due(obj) is None
    assert code_of(obj).sha256 == "a" * 64


def test_any_other_source_is_due_until_the_archive_made_of_it_is_recorded() -> None:
    obj = served(function_manifest())
    assert isinstance(code_due(obj), Inline)
    assert code_of(obj) == NO_CODE
    obj["status"] = {"code": {**ARCHIVE, "of": code_digest(obj["spec"])}}
    assert code_due(obj) is None
    assert code_of(obj).size == 10


@pytest.mark.parametrize("change", [{"code": {"inline": "else"}}, {"handler": "main.handler"}, {"runtime": "python3.13"}])
def test_what_makes_another_archive_is_due_again(change: dict[str, Any]) -> None:
    obj = served(function_manifest())
    obj["status"] = {"code": {**ARCHIVE, "of": code_digest(obj["spec"])}}
    assert code_due(edited(obj, **change)) is not None


def test_what_makes_the_same_archive_is_not_due_again() -> None:
    obj = served(function_manifest(code={"s3Bucket": "bucket", "s3Key": "a.zip"}))
    obj["status"] = {"code": {**ARCHIVE, "of": code_digest(obj["spec"])}}
    assert code_due(edited(obj, handler="main.handler", timeout=9)) is None


def test_a_config_map_is_due_each_time_because_it_changes_without_a_word() -> None:
    obj = served(function_manifest(code={"configMap": {"name": "files"}}))
    obj["status"] = {"code": {**ARCHIVE, "of": code_digest(obj["spec"])}}
    assert code_due(obj) == ConfigMapCode("files", None)
    assert code_of(obj).size == 10
