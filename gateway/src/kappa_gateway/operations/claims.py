"""Who has claimed what of the account's concurrency: reservations, and what is provisioned; read from the store as a whole.

Puts of either kind check and write under one lock per account and region (:func:`hold_claims`), so that two at once cannot take the
same room. Writers that do not come through this API, such as kubectl, are not held back here; the scaler enforces what there is room for.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import msgspec

from kappa_core.names import FunctionName
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import AccountId, Alias, Function, FunctionVersion, Key, Region
from kappa_core.rules.concurrency import claim
from kappa_core.rules.deletion import belongs
from kappa_core.rules.provisioned import Provisionable, requested
from kappa_gateway.operations.dependencies import Dependencies


class Claims(msgspec.Struct, frozen=True):
    """All that is configured in one account and region."""

    functions: dict[Key, Function]
    provisioned: dict[Key, list[Provisionable]]
    """Versions and aliases that have provisioned concurrency, by the key of their function."""

    def provisioned_for(self, function: Key) -> list[Provisionable]:
        return self.provisioned.get(function, [])

    def amounts(self, *, but: Key | None = None) -> list[int]:
        """What every function takes out of the account's pool, one aside."""
        return [
            claim(function.reserved_concurrency, sum(map(requested, self.provisioned_for(key))))
            for key, function in self.functions.items()
            if key != but
        ]


async def read_claims(store: ResourceStore, account: AccountId, region: Region) -> Claims:
    """Read now."""
    functions = {
        one.key: one for one in await store.list("Function", account=account, region=region) if isinstance(one, Function)
    }
    provisioned: dict[Key, list[Provisionable]] = {}
    for kind in ("FunctionVersion", "Alias"):
        for one in await store.list(kind, account=account, region=region):
            if isinstance(one, FunctionVersion | Alias) and requested(one):
                parent = Key("Function", account, region, one.name)
                if belongs(one, functions.get(parent)):
                    provisioned.setdefault(parent, []).append(one)
    return Claims(functions, provisioned)


def hold_claims(deps: Dependencies, name: FunctionName) -> AbstractAsyncContextManager[None]:
    """Held while a claim is checked and written; taken before the function's own lock."""
    return deps.locks.hold(("concurrency", name.account, name.region))
