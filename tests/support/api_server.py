"""Serves an ASGI application on a free loopback port, for tests that speak to it through a real HTTP client.

uvicorn in a thread, as the gateway runs it; :func:`lambda_client` is botocore without retries, so that the first answer is seen.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
import uvicorn
from botocore.config import Config


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The base URL of ``app`` while the block runs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", access_log=False, loop="asyncio"))
        ready = threading.Event()
        original_startup = server.startup

        async def startup(sockets: list[socket.socket] | None = None) -> None:
            await original_startup(sockets)
            ready.set()

        server.startup = startup  # type: ignore[method-assign]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="api server")
        thread.start()
        try:
            assert ready.wait(30), "the server did not start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server did not stop"


@contextmanager
def lambda_client(
    url: str,
    *,
    region: str = "eu-west-1",
    access_key_id: str = "111122223333",
    secret_access_key: str = "a secret",
    session_token: str | None = None,
    validate: bool = True,
) -> Iterator[Any]:
    """A botocore Lambda client that sends each request once."""
    session = botocore.session.Session()
    client = session.create_client(
        "lambda",
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        aws_session_token=session_token,
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=validate, read_timeout=20),
    )
    try:
        yield client
    finally:
        client.close()
