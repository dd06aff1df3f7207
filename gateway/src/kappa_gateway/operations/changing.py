"""Changing a function: read, decide, write, and again from the start when somebody else wrote in between.

Waits for (or, in strict mode, refuses at) what is under way, and finishes a publication that was interrupted before anything else
may change. Everything that belongs to a function is changed under its lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from kappa_core.errors import ResourceConflictException
from kappa_core.names import FunctionName
from kappa_core.ports.store import AlreadyExists, Conflict, NotFound, ResourceStore
from kappa_core.resources import Function, Key
from kappa_core.rules import publish, states
from kappa_gateway.operations.dependencies import Dependencies
from kappa_gateway.operations.reading import read_function

_ATTEMPTS: Final = 50
"""Writes of other processes that may come in between; within this process the lock keeps them apart."""

Decide = Callable[[Function], Awaitable[Function]]
"""From the stored function to the one to store; the same object means that nothing is to be written."""


async def change_function(deps: Dependencies, name: FunctionName, decide: Decide, *, when_settled: bool = True) -> Function:
    """Change the function that ``name`` means and return it as stored.

    ``decide`` may be called several times and must not write. With ``when_settled`` the change has to wait while the function is
    Pending or being updated.

    Raises
    ------
    ResourceNotFoundException
        If there is no such function.
    ResourceConflictException
        If something is still under way after the bounded wait, or at once in strict mode.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deps.settings.settle_wait_seconds
    while True:
        async with deps.locks.hold(name.key):
            outcome = await _attempt(deps, name, decide, when_settled=when_settled)
        if isinstance(outcome, Function):
            return outcome
        remaining = deadline - loop.time()
        if deps.settings.strict_states or remaining <= 0 or not await deps.settle.await_settled(name.key, remaining):
            raise outcome


def refuse_if_strict(deps: Dependencies, name: FunctionName, function: Function) -> None:
    """What :func:`change_function` would refuse in strict mode, said before any code is taken in."""
    busy = states.conflict(function.status, arn=name.arn)
    if deps.settings.strict_states and busy is not None:
        raise busy


async def _attempt(
    deps: Dependencies, name: FunctionName, decide: Decide, *, when_settled: bool
) -> Function | ResourceConflictException:
    for _ in range(_ATTEMPTS):
        function = await read_function(deps.store, name)
        busy = states.conflict(function.status, arn=name.arn) if when_settled else None
        if busy is not None:
            return busy
        try:
            function = await finish_publication(deps.store, function)
            changed = await decide(function)
            if changed is function:
                return function
            stored = await deps.store.update(changed)
        except (Conflict, NotFound):
            continue
        return await publish_intent(deps, stored)
    raise ResourceConflictException(
        f"The operation cannot be performed at this time. An update is in progress for resource: {name.arn}"
    )


async def publish_intent(deps: Dependencies, function: Function) -> Function:
    """Finish what a write that was just accepted intends to publish, and tell the settler about all of it."""
    try:
        return await finish_publication(deps.store, function)
    except (Conflict, NotFound):
        return function  # Another process has changed or deleted it in between; the publication is the next one's to finish.
    finally:
        deps.settle.changed(function.key)
        if function.publication is not None:
            deps.settle.changed(publish.version_of(function, function.publication).key)


async def finish_publication(store: ResourceStore, function: Function) -> Function:
    """Store the version that the function says is being published, unless that has been done; returns the function as stored.

    Raises Conflict or NotFound where the function has changed or gone meanwhile.
    """
    publication = publish.pending(function)
    if publication is None:
        return function
    # What another process has finished meanwhile must not be made again: a caller may have deleted the version since.
    current = await store.get(function.key)
    if not isinstance(current, Function) or current.publication != publication:
        raise Conflict(f"{function.name} is published by others")
    # Nor may the version be taken back where the update fails: whoever was faster has counted on it.
    with suppress(AlreadyExists):
        await store.create(publish.version_of(function, publication))
    return await store.update(publish.complete(function))


async def delete_quietly(store: ResourceStore, key: Key, *, resource_version: str | None = None) -> None:
    """Delete what may be gone or changed already."""
    try:
        await store.delete(key, resource_version=resource_version)
    except (NotFound, Conflict):
        return
