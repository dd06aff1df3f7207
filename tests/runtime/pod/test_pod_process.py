"""The first process of a pod against gateways with TLS, as a real process without a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pod_gateway import POD, TOKEN, ArchiveServer, Certificates, KnownTokens, Pod, pod_gateway, python_spec

ECHO = "def handler(event, context):\n    return {'event': event, 'memory': context.memory_limit_in_mb}\n"


def test_a_spare_pod_fetches_its_code_and_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        certificates = Certificates(tmp_path / "pki")
        tokens = KnownTokens({TOKEN: POD})
        with ArchiveServer().serving() as archives:
            async with (
                pod_gateway(certificates, tokens) as gateway,
                Pod(tmp_path, certificates, gateways=[gateway.address]) as pod,
            ):
                spec = python_spec(code=archives.offer({"app.py": ECHO}))
                assert await gateway.json(spec, {"a": 1}) == {"event": {"a": 1}, "memory": "128"}
                pod.terminate()
                assert await pod.ended() == 0
                assert pod.output == ""

    asyncio.run(scenario())
