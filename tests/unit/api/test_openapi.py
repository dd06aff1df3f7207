"""The OpenAPI document: valid, complete, readable, and the pages that show it."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from kappa_core.limits import Limits
from kappa_gateway.api.app import build_app
from kappa_gateway.api.model import load_documentation, load_model
from kappa_gateway.api.openapi import describe, first_sentence, plain_text
from kappa_gateway.auth.identity import Defaults, Unverified

DOCUMENT = describe(load_model(), documentation=load_documentation(), version="1.2.3")


def operations() -> dict[str, dict[str, Any]]:
    return {operation["operationId"]: operation for path in DOCUMENT["paths"].values() for operation in path.values()}


def test_the_document_is_valid_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_every_operation_is_described_invoke_included() -> None:
    assert set(operations()) == set(load_model().operations)
    for name, operation in operations().items():
        assert operation["summary"].startswith(name)
        assert "<" not in operation["summary"]


def test_an_operation_has_parameters_body_and_errors() -> None:
    create = operations()["CreateFunction"]
    schema = create["requestBody"]["content"]["application/json"]["schema"]
    assert {"FunctionName", "Role", "Code"} <= set(schema["required"])
    assert schema["properties"]["Code"]["$ref"] == "#/components/schemas/FunctionCode"
    assert "ResourceConflictException" in create["responses"]["409"]["description"]
    get = operations()["GetFunction"]
    assert [(parameter["name"], parameter["in"], parameter["required"]) for parameter in get["parameters"]] == [
        ("FunctionName", "path", True),
        ("Qualifier", "query", False),
    ]
    assert "requestBody" not in get


def test_operations_that_share_a_path_are_both_there() -> None:
    assert {"/2018-10-31/layers", "/2018-10-31/layers?find=LayerVersion"} <= set(DOCUMENT["paths"])


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        pytest.param(
            "<p>Creates a <a href='x'>function</a>.</p> <p>Then &amp; more</p>", "Creates a function. Then & more", id="html"
        ),
        pytest.param("", "", id="empty"),
    ],
)
def test_documentation_loses_its_markup(markup: str, text: str) -> None:
    assert plain_text(markup) == text


def test_a_summary_is_the_first_sentence() -> None:
    assert first_sentence("Creates version 1.0 of it. Then more.") == "Creates version 1.0 of it"


async def fetch(path: str) -> tuple[int, dict[bytes, bytes], bytes]:
    app = build_app({}, authenticator=Unverified(defaults=Defaults()), limits=Limits(), version="1.2.3")
    sent: list[dict[str, Any]] = []
    body = asyncio.Queue[dict[str, Any]]()
    body.put_nowait({"type": "http.request", "body": b""})

    async def receive() -> dict[str, Any]:
        return await body.get()  # after that the client stays and says nothing

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])


class Addresses(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value is not None]


def test_the_documentation_page_loads_nothing_from_elsewhere_and_all_that_it_loads_is_there() -> None:
    status, headers, page = asyncio.run(fetch("/docs"))
    assert (status, headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    text = page.decode()
    assert "//" not in re.sub(r"<!--.*?-->|^\s*//.*$", "", text, flags=re.MULTILINE)
    assert "'self'" in headers[b"content-security-policy"].decode()
    assert "http" not in headers[b"content-security-policy"].decode()
    (document,) = re.findall(r"url: '([^']*)'", text)
    loaded = [address for address in Addresses(text).found if not address.startswith("data:")]
    assert len(loaded) == 2
    for address in [document, *loaded]:
        assert address.startswith("/")
        status, _, body = asyncio.run(fetch(address))
        assert status == 200
        assert len(body) > 100_000


def test_swagger_ui_reads_the_version_of_openapi_that_the_document_has() -> None:
    _, _, script = asyncio.run(fetch("/docs/swagger-ui-bundle.js"))
    assert DOCUMENT["openapi"].startswith("3.1.")
    (major,) = set(re.findall(rb'PACKAGE_VERSION:"(\d+)\.', script))
    assert int(major) >= 5


def test_the_document_is_served() -> None:
    status, _, document = asyncio.run(fetch("/openapi.json"))
    assert status == 200
    assert msgspec.json.decode(document) == DOCUMENT
