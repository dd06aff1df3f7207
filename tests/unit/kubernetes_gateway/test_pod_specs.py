"""Specs for pods: links and keys that are good when they are sent, and archives that only such links lead to."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from kappa_core.errors import InvalidParameterValueException, InvalidRuntimeException
from kappa_core.memory import MemoryBlobStore, MemoryResourceStore
from kappa_core.names import layer_arn
from kappa_core.ports.blobs import BlobStoreUnavailable
from kappa_gateway.auth.session_keys import SessionKeys
from kappa_gateway.code.downloads import CodeDownloads
from kappa_gateway.code.links import CODE_LINK_SECONDS, CodeLinks
from kappa_gateway.hot.version import Version
from kappa_gateway.kubernetes.specs import PodSpecs
from kappa_gateway.specs import ServiceEndpoints
from kappa_gateway.stores.absent import AbsentBlobStore
from made import ACCOUNT, REGION, code, configuration, layer

KEY = b"k" * 32
URL = "http://kappa-gateway.kappa-system.svc:9000"


class Gateway:
    """What a gateway makes specs from, with a clock."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.store = MemoryResourceStore(clock_ms=lambda: 0)
        self.blobs = MemoryBlobStore(clock_ms=lambda: 0)
        self.links = CodeLinks(KEY, now=lambda: self.now)
        self.session_keys = SessionKeys(KEY)
        self.specs = PodSpecs(
            store=self.store,
            endpoints=ServiceEndpoints(URL, None, {"s3": "http://s3.example"}),
            links=self.links,
            session_keys=self.session_keys,
            session_seconds=3600.0,
            init_seconds=10.0,
            runtimes=frozenset({"python3.12"}),
            now=lambda: self.now,
        )
        self.downloads = CodeDownloads(blobs=self.blobs, links=self.links)

    async def get(self, url: str, *, method: str = "GET", downloads: CodeDownloads | None = None) -> tuple[int, bytes]:
        parts = urlsplit(url)
        scope = {"method": method, "path": parts.path, "query_string": parts.query.encode()}
        assert CodeDownloads.serves(method, parts.path)
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await (downloads or self.downloads)(scope, None, send)
        return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


def version(**changes: Any) -> Version:
    return Version(
        account=ACCOUNT,
        region=REGION,
        function="hello",
        function_uid="uid",
        version="$LATEST",
        configuration=configuration(**changes),
    )


def test_a_spec_says_where_code_layers_and_services_are() -> None:
    async def scenario() -> None:
        gateway = Gateway()
        await gateway.store.create(msgspec.structs.replace(layer(3), name="base", code=code("b" * 64)))
        spec = await gateway.specs.make(version(layers=(layer_arn(ACCOUNT, REGION, "base", 3),)))
        assert (spec.task_root, spec.opt_root, spec.command) == ("/var/task", "/opt", ())
        assert spec.code is not None
        assert spec.code.url.startswith(f"{URL}/_kappa/code/{'a' * 64}?")
        assert [each.sha256 for each in spec.layers] == ["b" * 64]
        found = spec.platform_variables
        assert found["AWS_ENDPOINT_URL_LAMBDA"] == URL
        assert found["AWS_ENDPOINT_URL_S3"] == "http://s3.example"
        assert found["AWS_REGION"] == REGION
        claims = gateway.session_keys.claims(
            found["AWS_ACCESS_KEY_ID"], session_token=found["AWS_SESSION_TOKEN"], now=gateway.now
        )
        assert claims.function_arn == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:hello"

    asyncio.run(scenario())


def test_a_renewed_spec_has_links_and_keys_that_begin_to_age_now() -> None:
    async def scenario() -> None:
        gateway = Gateway()
        stored = await gateway.blobs.put(b"archive")
        spec = await gateway.specs.make(version(code=code(stored.sha256)))
        gateway.now += 10 * 3600
        assert await gateway.specs.make(version(code=code(stored.sha256))) is spec
        assert spec.code is not None
        assert (await gateway.get(spec.code.url))[0] == 403
        renewed = gateway.specs.renewed(spec)
        assert renewed.revision == spec.revision
        assert renewed.code is not None
        assert await gateway.get(renewed.code.url) == (200, b"archive")
        await gateway.blobs.close()
        found = renewed.platform_variables
        gateway.session_keys.claims(found["AWS_ACCESS_KEY_ID"], session_token=found["AWS_SESSION_TOKEN"], now=gateway.now + 3599)

    asyncio.run(scenario())


def test_what_cannot_run_is_refused_when_its_spec_is_made() -> None:
    async def scenario() -> None:
        specs = Gateway().specs
        with pytest.raises(InvalidRuntimeException, match=r"ruby3\.4"):
            await specs.make(version(runtime="ruby3.4"))
        with pytest.raises(InvalidParameterValueException, match="does not exist"):
            await specs.make(version(layers=(layer_arn(ACCOUNT, REGION, "base", 1),)))

    asyncio.run(scenario())


def test_a_link_leads_to_one_archive_for_ten_minutes() -> None:
    async def scenario() -> None:
        gateway = Gateway()
        stored = await gateway.blobs.put(b"archive")
        path = gateway.links.path(stored.sha256, name="code")
        assert await gateway.get(path) == (200, b"archive")
        assert await gateway.get(path, method="HEAD") == (200, b"")
        assert (await gateway.get(path.replace(stored.sha256, "b" * 64)))[0] == 403
        assert (await gateway.get(path.replace("signature=", "signature=0")))[0] == 403
        assert (await gateway.get(f"/_kappa/code/{stored.sha256}"))[0] == 403
        assert (await gateway.get(gateway.links.path(code("b" * 64).sha256, name="code")))[0] == 404
        gateway.now += CODE_LINK_SECONDS + 1
        assert (await gateway.get(path))[0] == 403
        await gateway.blobs.close()

    asyncio.run(scenario())


def test_a_store_that_is_away_is_an_error_that_passes() -> None:
    async def scenario() -> None:
        gateway = Gateway()
        absent = CodeDownloads(blobs=AbsentBlobStore(), links=gateway.links)
        assert (await gateway.get(gateway.links.path(code().sha256, name="code"), downloads=absent))[0] == 503
        with pytest.raises(BlobStoreUnavailable, match="KAPPA_POSTGRES_DSN"):
            await AbsentBlobStore().put(b"x")

    asyncio.run(scenario())
