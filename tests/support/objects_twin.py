"""The Kubernetes API in memory, as far as the operator reads and writes it: objects by path, versions, preconditions, faults.

Server-side apply is a merge here, without field owners; conditions are merged by type. Whoever listens is told of every change, as a
watch would tell it. ``faults`` is asked before every request and may raise; ``writes`` is what was asked for, in order.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

from kappa_crds.api import AlreadyExists, Conflict, NotFound, Object

Listener = Callable[[str, bool, Object], None]


class ObjectsTwin:
    """See the module."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[tuple[str, str]] = []
        """Verb and path."""
        self.faults: Callable[[str, str], None] = lambda verb, path: None
        self.listeners: list[Listener] = []
        self._version = 100
        self._uids: Counter[str] = Counter()

    # -- what a test does ----------------------------------------------------------------------------------------------
    def put(self, path: str, thing: Object) -> Object:
        """Create or replace an object as somebody else; ``path`` is that of its collection."""
        path = f"{path}/{thing['metadata']['name']}"
        before = self.objects.get(path)
        kept = before["metadata"] if before else {}
        spec_changed = before is None or before.get("spec") != thing.get("spec")
        metadata = {
            "uid": kept.get("uid") or self._uid(thing["metadata"]["name"]),
            "creationTimestamp": kept.get("creationTimestamp") or "2026-01-01T00:00:00Z",
            "generation": kept.get("generation", 0) + spec_changed,
            **{name: value for name, value in thing["metadata"].items() if name not in {"resourceVersion", "uid"}},
        }
        return self._store(path, {**copy.deepcopy(thing), "metadata": metadata})

    def remove(self, path: str) -> None:
        thing = self.objects.pop(path)
        thing["metadata"]["resourceVersion"] = self._next()
        self._tell(thing, gone=True)

    def of_kind(self, kind: str) -> list[Object]:
        return [each for each in self.objects.values() if each["kind"] == kind]

    # -- what the operator does ----------------------------------------------------------------------------------------
    async def get(self, path: str, /) -> Object:
        self.faults("get", path)
        if path not in self.objects:
            raise NotFound(path)
        return copy.deepcopy(self.objects[path])

    async def create(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        self._asked("create", path)
        if f"{path}/{body['metadata']['name']}" in self.objects:
            raise AlreadyExists(path)
        return copy.deepcopy(self.put(path, body))

    async def apply(self, path: str, body: Object, /, *, field_manager: str, force: bool = False) -> Object:
        self._asked("apply", path)
        status = path.endswith("/status")
        path = path.removesuffix("/status")
        before = self.objects.get(path)
        if before is None:
            if status:
                raise NotFound(path)
            return copy.deepcopy(self.put(path.rpartition("/")[0], body))
        if body["metadata"].get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]:
            raise Conflict(path)
        if status:
            said = dict(body["status"])
            after = _with_conditions(before, said.pop("conditions")) if "conditions" in said else copy.deepcopy(before)
            after.setdefault("status", {}).update(copy.deepcopy(said))
            return copy.deepcopy(self._store(path, after))
        return copy.deepcopy(self.put(path.rpartition("/")[0], _merged(before, body)))

    async def merge_patch(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        self._asked("merge_patch", path)
        if path not in self.objects:
            raise NotFound(path)
        return copy.deepcopy(self._store(path, _merged(self.objects[path], body)))

    async def json_patch(self, path: str, operations: list[Object], /, *, field_manager: str) -> Object:
        self._asked("json_patch", path)
        thing = copy.deepcopy(self.objects[path])
        for operation in operations:
            *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
            target = thing
            for part in way:
                target = target[part]
            if last == "resourceVersion" and target[last] != operation["value"]:
                raise Conflict(path)
            target[last] = operation["value"]
        return copy.deepcopy(self.put(path.rpartition("/")[0], thing))

    async def delete(
        self, path: str, /, *, uid: str | None = None, resource_version: str | None = None, propagation: Any = None
    ) -> Object:
        self._asked("delete", path)
        if path not in self.objects:
            raise NotFound(path)
        metadata = self.objects[path]["metadata"]
        if (uid or metadata["uid"]) != metadata["uid"] or (resource_version or metadata["resourceVersion"]) != metadata[
            "resourceVersion"
        ]:
            raise Conflict(path)
        self.remove(path)
        return {}

    def _asked(self, verb: str, path: str) -> None:
        self.faults(verb, path)
        self.writes.append((verb, path))

    def _store(self, path: str, thing: Object) -> Object:
        thing["metadata"]["resourceVersion"] = self._next()
        self.objects[path] = thing
        self._tell(thing, gone=False)
        return thing

    def _uid(self, name: str) -> str:
        self._uids[name] += 1
        return f"uid-{name}" if self._uids[name] == 1 else f"uid-{name}-{self._uids[name]}"

    def _next(self) -> str:
        self._version += 1
        return str(self._version)

    def _tell(self, thing: Object, *, gone: bool) -> None:
        for listener in self.listeners:
            listener(thing["kind"], gone, copy.deepcopy(thing))


def _merged(before: Any, over: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(over, dict):
        return copy.deepcopy(over)
    return {
        **copy.deepcopy(before),
        **{name: _merged(before.get(name), value) for name, value in over.items()},
    }


def _with_conditions(before: Object, conditions: list[Object]) -> Object:
    own = {"Ready", "NameConflict", "StoredOnly"}
    others = [each for each in (before.get("status") or {}).get("conditions") or [] if each["type"] not in own]
    after = copy.deepcopy(before)
    after.setdefault("status", {})["conditions"] = [*others, *copy.deepcopy(conditions)]
    return after
