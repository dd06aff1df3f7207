"""Kappa's own routes for asynchronous events, under ``/_kappa/events``: what waits, what was given up, and what to do about it.

They speak for the account and region of the caller, like every operation, and see nothing of others. ``kappa async`` is their client.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from kappa_core.errors import LambdaError, ResourceNotFoundException, ServiceException
from kappa_core.names import function_arn
from kappa_core.ports.queue import Dead, Event, EventQueue, FunctionStats, unqualified
from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.clock import epoch_ms
from kappa_gateway.native import Scope
from kappa_gateway.wire import error_response, new_request_id

PAGE: Final = 100
"""Dead letters that are answered at once."""
READ_EVENTS: Final = "ReadEvents"
CHANGE_EVENTS: Final = "ChangeEvents"
"""The actions of these routes."""

_encode = msgspec.json.Encoder().encode


def build_events_router(*, queue: EventQueue, wake: Callable[[], None], scope: Scope) -> APIRouter:
    """The routes over the queue; ``wake`` tells the worker of this process that something was redriven."""
    router = APIRouter(prefix="/_kappa/events", tags=["Kappa"])

    async def theirs(request: Request, action: str, function: str | None = None) -> list[FunctionStats]:
        account, region = await scope(request, action, function or "")
        prefix = function_arn(account, region, "")
        every = [one for one in await queue.stats() if one.function_arn.startswith(prefix)]
        return every if function is None else [one for one in every if one.function_arn == prefix + function]

    @router.get("", summary="Functions with their queues")
    async def functions(request: Request) -> Response:
        async def work() -> Any:
            now = epoch_ms()
            return {"Functions": [_stats(one, now=now) for one in await theirs(request, READ_EVENTS)]}

        return await _answer(work)

    @router.get("/of/{function}", summary="Dead letters of a function")
    async def dead_letters(
        request: Request, function: str, after: str = "", limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE
    ) -> Response:
        async def work() -> Any:
            found: list[Dead] = []
            for one in await theirs(request, READ_EVENTS, function):
                found += await queue.dead_letters(one.function_uid, after=after, limit=limit - len(found))
                if len(found) == limit:
                    break
            return {"DeadLetters": [_dead(one) for one in found]}

        return await _answer(work)

    @router.get("/id/{event_id}", summary="One event with its payload")
    async def event(request: Request, event_id: str) -> Response:
        async def work() -> Any:
            account, region = await scope(request, READ_EVENTS, "")
            found = await queue.find(event_id)
            if found is None or not found.event.function_arn.startswith(function_arn(account, region, "")):
                raise ResourceNotFoundException(f"No event {event_id} waits or was given up.")
            if isinstance(found, Dead):
                return {**_dead(found), "State": "dead", **_payload(found.event)}
            return {
                **_event(found.event, enqueued_ms=found.enqueued_ms),
                "State": "waiting",
                "Due": found.due_ms / 1000,
                "Leases": found.leases,
                **_payload(found.event),
            }

        return await _answer(work)

    @router.post("/of/{function}/redrive", summary="Have dead letters of a function run again")
    async def redrive(request: Request, function: str, event_id: Annotated[str, Query(alias="id")] = "") -> Response:
        async def work() -> Any:
            functions = await theirs(request, CHANGE_EVENTS, function)
            count = sum([await queue.redrive(one.function_uid, event_id=event_id) for one in functions])
            wake()
            return {"Events": count}

        return await _answer(work)

    @router.post("/of/{function}/purge", summary="Drop dead letters of a function, or what waits for it")
    async def purge(
        request: Request, function: str, waiting: bool = False, event_id: Annotated[str, Query(alias="id")] = ""
    ) -> Response:
        async def work() -> Any:
            functions = await theirs(request, CHANGE_EVENTS, function)
            counts = [await queue.purge(one.function_uid, dead=not waiting, event_id=event_id) for one in functions]
            wake()
            return {"Events": sum(counts)}

        return await _answer(work)

    return router


async def _answer(work: Callable[[], Any]) -> Response:
    try:
        return Response(_encode(await work()), media_type="application/json")
    except LambdaError as error:
        refused = error
    except StoreUnavailable as error:
        refused = ServiceException(f"The event queue cannot be used: {error}")
    status, headers, body = error_response(refused, new_request_id())
    return Response(body, status_code=status, headers=headers)


def _stats(stats: FunctionStats, *, now: int) -> dict[str, Any]:
    return {
        "FunctionName": stats.function_arn.rsplit(":", 1)[1],
        "FunctionUid": stats.function_uid,
        "Waiting": stats.depth,
        "WaitingBytes": stats.depth_bytes,
        "OldestAgeSeconds": None if stats.oldest_ms is None else max(0, now - stats.oldest_ms) / 1000,
        "Dead": stats.dead,
        "Done": stats.done,
        "GivenUp": stats.killed,
    }


def _event(event: Event, *, enqueued_ms: int) -> dict[str, Any]:
    qualifier = event.function_arn[len(unqualified(event.function_arn)) + 1 :]
    return {
        "EventId": event.event_id,
        "FunctionArn": event.function_arn,
        "Qualifier": qualifier or "$LATEST",
        "Enqueued": enqueued_ms / 1000,
        "Bytes": len(event.payload),
    }


def _dead(dead: Dead) -> dict[str, Any]:
    return {
        **_event(dead.event, enqueued_ms=dead.enqueued_ms),
        "GivenUp": dead.killed_ms / 1000,
        "Reason": dead.reason,
        "Detail": dead.detail,
    }


def _payload(event: Event) -> dict[str, str]:
    return {"Payload": base64.b64encode(event.payload).decode()}
