"""How many bytes of code an account keeps in a region, and whether it may keep more.

Versions and layer versions count as functions do. The sum is read from the store and remembered for a minute plus what was added
since, so that creating a thousand functions does not list them a thousand times; near the limit it is always read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from kappa_core.errors import CodeStorageExceededException
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import AccountId, Function, FunctionVersion, LayerVersion, Region, Resource

_REMEMBERED_SECONDS: Final = 60.0


class Usage(msgspec.Struct, frozen=True):
    """What GetAccountSettings shows of the code."""

    code_bytes: int
    functions: int


async def read_usage(store: ResourceStore, account: AccountId, region: Region) -> Usage:
    """Counted from the store."""
    functions = [one for one in await store.list("Function", account=account, region=region) if isinstance(one, Function)]
    versions = await store.list("FunctionVersion", account=account, region=region)
    layers = await store.list("LayerVersion", account=account, region=region)
    uids = {function.meta.uid for function in functions}
    return Usage(
        sum(function.configuration.code.size for function in functions) + _code_bytes(versions, uids) + _code_bytes(layers, uids),
        len(functions),
    )


def _code_bytes(resources: Iterable[Resource], uids: set[str]) -> int:
    total = 0
    for resource in resources:
        if isinstance(resource, FunctionVersion) and resource.function_uid in uids:
            total += resource.configuration.code.size
        elif isinstance(resource, LayerVersion) and not resource.deleted:
            total += resource.code.size
    return total


class _Known(msgspec.Struct):
    bytes: int
    read_at: float


class CodeStorage:
    """Keeps accounts within their storage. ``monotonic`` counts seconds."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: dict[tuple[AccountId, Region], _Known] = {}

    async def check(self, store: ResourceStore, account: AccountId, region: Region, *, limit: int, adding: int) -> None:
        """Raises CodeStorageExceededException if ``adding`` bytes do not fit any more."""
        known = self._known.get((account, region))
        now = self._monotonic()
        if known is None or now - known.read_at > _REMEMBERED_SECONDS or known.bytes + adding > limit:
            usage = await read_usage(store, account, region)
            known = self._known[account, region] = _Known(usage.code_bytes, now)
            if known.bytes + adding > limit:
                raise CodeStorageExceededException(f"Code storage limit exceeded: {known.bytes + adding} of {limit} bytes.")
        known.bytes += adding
