"""The condition ``Scalable`` of Functions: whether their environments can be started, and if not, why, in the words of whoever refused.

Written by the gateway that holds the scaler, under a field owner of its own, so that it never meets the settler's writes. It tells of
changes only: a function that never had trouble never has the condition. What cannot be written now is written with the next change, or
the next holder: an invocation that waits says the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from kappa_crds import names
from kappa_crds.api import ApiError, api_path
from kappa_crds.status import condition

_log = logging.getLogger(__name__)

SCALABLE: Final = "Scalable"
MANAGER: Final = "kappa-gateway-scaler"
"""Field owner of this condition alone."""


class StatusApi(Protocol):
    """What this module needs of the API."""

    async def get(self, path: str, /) -> dict[str, Any]: ...
    async def apply(self, path: str, body: dict[str, Any], /, *, field_manager: str, force: bool) -> dict[str, Any]: ...


class ScalableConditions:
    """See the module. ``place`` finds namespace and name of a Function's object by its uid; ``clock_ms`` is epoch milliseconds."""

    def __init__(self, api: StatusApi, *, place: Callable[[str], tuple[str, str] | None], clock_ms: Callable[[], int]) -> None:
        self._api = api
        self._place = place
        self._clock_ms = clock_ms
        self._causes: dict[str, dict[str, str]] = {}
        """By function uid: cause by revision. A function stays here while it has trouble, or may have had it under another holder."""
        self._clean: set[str] = set()
        """Functions whose object is known to say nothing bad."""
        self._writing: dict[str, asyncio.Task[None]] = {}

    def cause(self, revision: str, cause: str, /) -> None:
        """Environments of a revision cannot be started; empty: they can."""
        uid = revision.partition(".")[0]
        if not cause and uid in self._clean:
            return
        first = uid not in self._causes
        causes = self._causes.setdefault(uid, {})
        before = dict(causes)
        if cause:
            self._clean.discard(uid)
            causes[revision] = cause
        else:
            causes.pop(revision, None)
        if (first or causes != before) and uid not in self._writing:
            self._writing[uid] = asyncio.create_task(self._write(uid), name=f"condition of {uid}")

    def forget(self) -> None:
        """Another gateway holds the scaler now, and knows."""
        self._causes.clear()
        self._clean.clear()

    async def close(self) -> None:
        """Give up what is being written. Idempotent."""
        tasks = list(self._writing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, uid: str) -> None:
        """Until what is written is what is known."""
        try:
            while True:
                causes = dict(self._causes.get(uid, {}))
                place = self._place(uid)
                if place is not None:
                    await self._apply(*place, uid=uid, causes=causes)
                if self._causes.get(uid, {}) == causes:
                    if not causes and self._causes.pop(uid, None) is not None:
                        self._clean.add(uid)
                    return
        except ApiError as error:
            _log.warning("the condition of function %s cannot be written: %s", uid, error)
        finally:
            del self._writing[uid]

    async def _apply(self, namespace: str, name: str, *, uid: str, causes: dict[str, str]) -> None:
        path = api_path(names.API_VERSION, names.PLURALS["Function"], namespace=namespace, name=name)
        found = await self._api.get(path)
        metadata = found["metadata"]
        if metadata["uid"] != uid:
            return
        conditions = (found.get("status") or {}).get("conditions") or ()
        if not causes and not any(one.get("type") == SCALABLE and one.get("status") == "False" for one in conditions):
            return
        said = condition(
            conditions,
            type=SCALABLE,
            status="False" if causes else "True",
            reason="CannotStart" if causes else "Starts",
            message="; ".join(sorted(set(causes.values()))),
            generation=metadata.get("generation", 1),
            now_ms=self._clock_ms(),
        )
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "Function",
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "status": {"conditions": [said]},
        }
        await self._api.apply(f"{path}/status", body, field_manager=MANAGER, force=True)
