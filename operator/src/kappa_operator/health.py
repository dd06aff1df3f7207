"""/healthz, /readyz and /metrics. Healthy is a process whose watches speak, not merely one whose event loop turns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Check = Callable[[], str | None]
"""None where all is well, else one line that says what is not."""


@asynccontextmanager
async def serving(*, host: str, port: int, healthy: Check, ready: Check, metrics: Callable[[], bytes]) -> AsyncIterator[int]:
    """Serve until the block ends; yields the port, which matters where ``port`` is 0. Raises OSError where it is taken."""

    def answer(check: Check) -> Callable[[web.Request], object]:
        async def handler(_: web.Request) -> web.Response:
            wrong = check()
            return web.Response(status=200 if wrong is None else 503, text=f"{wrong or 'ok'}\n")

        return handler

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    application = web.Application()
    application.router.add_get("/healthz", answer(healthy))  # type: ignore[arg-type]  # aiohttp's Handler is awaitable of a response
    application.router.add_get("/readyz", answer(ready))  # type: ignore[arg-type]
    application.router.add_get("/metrics", exposition)
    runner = web.AppRunner(application, handle_signals=False, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
