"""Everything that the operator writes: counted, paced, and heard at once.

Each write waits for its turn in the budget, and its answer is told as a change before the watch brings it, so that looking at the same
object again a moment later finds nothing left to do. Which writes those are is decided elsewhere; errors are the API's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from kappa_crds import labels, names
from kappa_crds.api import AlreadyExists, Object
from kappa_operator.kinds import WATCHED
from kappa_operator.reconcile.conditions import Condition
from kappa_operator.reconcile.deployment import TEMPLATE_DIGEST
from kappa_operator.workqueue import WriteBudget

ENVIRONMENTS_MANAGER: Final = "kappa-operator-environments"
_NOTE_LENGTH: Final = 1024
_EVENTS_PATH: Final = "/apis/events.k8s.io/v1/namespaces/{}/events"


class WritingApi(Protocol):
    """What this module needs of the API."""

    async def get(self, path: str, /) -> Object: ...
    async def create(self, path: str, body: Object, /, *, field_manager: str) -> Object: ...
    async def apply(self, path: str, body: Object, /, *, field_manager: str, force: bool = False) -> Object: ...
    async def merge_patch(self, path: str, body: Object, /, *, field_manager: str) -> Object: ...
    async def json_patch(self, path: str, operations: list[Object], /, *, field_manager: str) -> Object: ...
    async def delete(
        self, path: str, /, *, uid: str | None = None, resource_version: str | None = None, propagation: Any = None
    ) -> Object: ...


class Writer:
    """``heard`` is told the kind and the state that a write has led to; ``wrote`` is told the kind and what was done, for counting."""

    def __init__(
        self,
        api: WritingApi,
        *,
        heard: Callable[[str, Object], None],
        budget: WriteBudget,
        identity: str,
        wrote: Callable[[str, str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._heard = heard
        self._budget = budget
        self._identity = identity
        self._wrote = wrote
        self._now = now

    async def create(self, kind: str, thing: Object) -> bool:
        """POST. False where an object of that name exists; what it is like is known afterwards."""
        metadata = thing["metadata"]
        collection = WATCHED[kind].paths([metadata["namespace"]])[0]
        await self._turn(kind, "create")
        try:
            made = await self._api.create(collection, thing, field_manager=names.OPERATOR_MANAGER)
        except AlreadyExists:
            self._heard(kind, await self._api.get(WATCHED[kind].path(metadata["namespace"], metadata["name"])))
            return False
        self._heard(kind, made)
        return True

    async def apply(self, kind: str, thing: Object) -> None:
        """Server-side apply of an object that is the operator's alone."""
        metadata = thing["metadata"]
        await self._turn(kind, "apply")
        path = WATCHED[kind].path(metadata["namespace"], metadata["name"])
        self._heard(kind, await self._api.apply(path, thing, field_manager=names.OPERATOR_MANAGER, force=True))

    async def conditions(self, kind: str, thing: Object, conditions: list[Object]) -> None:
        """Write the operator's conditions of an object, and of no other object that may have taken its name."""
        metadata = thing["metadata"]
        body = {
            "apiVersion": thing["apiVersion"],
            "kind": kind,
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "status": {"conditions": conditions},
        }
        await self._turn(kind, "status")
        path = WATCHED[kind].path(metadata["namespace"], metadata["name"], subresource="status")
        self._heard(kind, await self._api.apply(path, body, field_manager=names.OPERATOR_MANAGER, force=True))

    async def environments(self, thing: Object, total: int) -> None:
        """Write how many environments a Function has, and nothing else of its status."""
        metadata = thing["metadata"]
        body = {
            "apiVersion": thing["apiVersion"],
            "kind": "Function",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "status": {"environments": {"total": total}},
        }
        await self._turn("Function", "environments")
        path = WATCHED["Function"].path(metadata["namespace"], metadata["name"], subresource="status")
        # An owner of its own: what this part wrote stays when the conditions are written, and the other way round.
        self._heard("Function", await self._api.apply(path, body, field_manager=ENVIRONMENTS_MANAGER, force=True))

    async def adopt(self, kind: str, thing: Object, *, owner: Object) -> None:
        """Make a version, alias or configuration that somebody wrote by hand a child of its Function."""
        metadata, parent = thing["metadata"], owner["metadata"]
        reference = {"apiVersion": names.API_VERSION, "kind": "Function", "name": parent["name"], "uid": parent["uid"]}
        body = {
            "apiVersion": names.API_VERSION,
            "kind": kind,
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "labels": {labels.FUNCTION: parent["name"]},
                "annotations": {labels.FUNCTION_UID: parent["uid"]},
                "ownerReferences": [{**reference, "controller": True}],
            },
        }
        await self._turn(kind, "adopt")
        path = WATCHED[kind].path(metadata["namespace"], metadata["name"])
        self._heard(kind, await self._api.apply(path, body, field_manager=names.OPERATOR_MANAGER, force=True))

    async def reshape(self, found: Object, wanted: Object) -> None:
        """Give a Deployment another pod template. Raises Conflict where it is no longer the one that was seen without pods."""
        metadata = found["metadata"]
        digest = wanted["metadata"]["annotations"][TEMPLATE_DIGEST]
        annotation = TEMPLATE_DIGEST.replace("~", "~0").replace("/", "~1")
        operations = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "add", "path": f"/metadata/annotations/{annotation}", "value": digest},
            {"op": "replace", "path": "/spec/template", "value": wanted["spec"]["template"]},
        ]
        await self._turn("Deployment", "reshape")
        path = WATCHED["Deployment"].path(metadata["namespace"], metadata["name"])
        self._heard("Deployment", await self._api.json_patch(path, operations, field_manager=names.OPERATOR_MANAGER))

    async def delete(self, kind: str, thing: Object) -> None:
        """Delete exactly the state that was seen. Raises Conflict where it has changed, NotFound where it is gone."""
        metadata = thing["metadata"]
        await self._turn(kind, "delete")
        await self._api.delete(
            WATCHED[kind].path(metadata["namespace"], metadata["name"]),
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            propagation="Background",
        )

    async def event(self, kind: str, thing: Object, condition: Condition) -> None:
        """One Event for each object and reason; when it comes again it is counted, not repeated."""
        metadata = thing["metadata"]
        now = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        name = f"{metadata['name'][:200]}.{_short(metadata['uid'], condition.type, condition.reason)}"
        path = _EVENTS_PATH.format(metadata["namespace"])
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "eventTime": now,
            "reportingController": "lambda.kappa.dev/operator",
            "reportingInstance": self._identity[:128],
            "action": "Reconcile",
            "reason": condition.reason,
            "type": "Normal" if condition.type == "Ready" and condition.status == "True" else "Warning",
            "note": condition.message[:_NOTE_LENGTH],
            "regarding": {
                "apiVersion": thing["apiVersion"],
                "kind": kind,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
        }
        await self._turn("Event", "create")
        try:
            await self._api.create(path, body, field_manager=names.OPERATOR_MANAGER)
        except AlreadyExists:
            await self._count(f"{path}/{name}", now)

    async def _count(self, path: str, now: str) -> None:
        series = (await self._api.get(path)).get("series") or {}
        again = {"series": {"count": int(series.get("count") or 1) + 1, "lastObservedTime": now}}
        await self._turn("Event", "count")
        await self._api.merge_patch(path, again, field_manager=names.OPERATOR_MANAGER)

    async def _turn(self, kind: str, verb: str) -> None:
        await self._budget.take()
        self._wrote(kind, verb)


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
