"""The AWS SDK for JavaScript without bringing it: by import and by require(), under a real supervisor, in the sandbox and beside it."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from kappa_gateway.embedded.sdks import node_sdk
from node_function import node
from supervised import need_namespaces, supervised

SEND = "new SQSClient({}).send(new SendMessageCommand({QueueUrl: process.env.AWS_ENDPOINT_URL + '/000000000000/q', MessageBody: 'b'}))"
NAMES = "{ SQSClient, SendMessageCommand }"
COMMONJS = f"const {NAMES} = require('@aws-sdk/client-sqs'); exports.handler = async () => (await {SEND}).MessageId"
MODULE = f"import {NAMES} from '@aws-sdk/client-sqs'; export const handler = async () => (await {SEND}).MessageId"


class Queue(BaseHTTPRequestHandler):
    """SQS as far as one SendMessage goes."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"MessageId": "m-1", "MD5OfMessageBody": "92eb5ffee6ae2fec3ad71c777531578f"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Quiet."""


@pytest.mark.node
@pytest.mark.parametrize("mode", ["plain", "namespaces"])
@pytest.mark.parametrize("files", [{"index.js": COMMONJS}, {"index.mjs": MODULE}], ids=["require", "import"])
def test_the_sdk_is_there_and_finds_the_endpoint(tmp_path: Path, mode: Any, files: dict[str, str]) -> None:
    sdk = node_sdk()
    if sdk is None:
        pytest.skip("the AWS SDK for JavaScript is not installed (kappa sdk install)")
    if mode == "namespaces":
        need_namespaces(tmp_path)

    async def scenario(endpoint: str) -> None:
        told = {
            "KAPPA_SDK_NODE": str(sdk),
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "ASIATRIED",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_SESSION_TOKEN": "token",
        }
        values: dict[str, Any] = {"command": (node(),), "runtime": "nodejs20.x", "platform_variables": told}
        async with supervised(tmp_path, files, mode=mode, **values) as function:
            assert await function.returned() == "m-1"

    with HTTPServer(("127.0.0.1", 0), Queue) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            asyncio.run(scenario(f"http://127.0.0.1:{server.server_port}"))
        finally:
            server.shutdown()
            thread.join()
