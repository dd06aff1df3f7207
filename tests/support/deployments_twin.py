"""Deployments, their pods and the ReplicaSet controller in memory: the part of a cluster that the provider of environments works with.

``settle`` lets the controller act: it makes what is missing and deletes what ranks lowest, as Kubernetes' does; pods come up only as the
test says (``run``). ``faults`` is asked before every request and may raise; ``writes`` is what was asked for, in order.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from kappa_crds import labels
from kappa_crds.api import Conflict, Invalid, NotFound, Object

NAMESPACE = "shop"
COST = "controller.kubernetes.io/pod-deletion-cost"


class DeploymentsTwin:
    """See the module; implements ProviderApi."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        """By plural and name."""
        self.writes: list[tuple[str, str, Any]] = []
        """Verb, what, and body."""
        self.faults: Callable[[str, str], None] = lambda verb, path: None
        self._history: list[tuple[int, str, Object]] = []
        self._version = 0
        self._made = 0
        self._woken = asyncio.Event()

    # -- what the test does --------------------------------------------------------------------------------------------
    def deployment(self, name: str, revision: str, *, replicas: int = 0) -> None:
        metadata = {"namespace": NAMESPACE, "name": name, "uid": f"uid-{name}", "annotations": {labels.REVISION: revision}}
        self._put("deployments", {"metadata": metadata, "spec": {"replicas": replicas}, "status": {}}, "ADDED")

    def replicas(self, name: str) -> int:
        number: int = self.objects["deployments", name]["spec"]["replicas"]
        return number

    def scale(self, name: str, replicas: int) -> None:
        """As somebody else."""
        self._change("deployments", name, spec={"replicas": replicas})

    def failing(self, name: str, message: str) -> None:
        """The ReplicaSet cannot make pods."""
        condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
        self._change("deployments", name, status={"conditions": [condition]})

    def pods(self) -> list[str]:
        """UIDs of what is not being deleted."""
        pods = [pod["metadata"] for (plural, _), pod in self.objects.items() if plural == "pods"]
        return [metadata["uid"] for metadata in pods if "deletionTimestamp" not in metadata]

    def settle(self, name: str) -> None:
        """The ReplicaSet controller looks."""
        deployment = self.objects["deployments", name]
        revision = deployment["metadata"]["annotations"][labels.REVISION]
        pods = [
            pod
            for (plural, _), pod in self.objects.items()
            if plural == "pods"
            and pod["metadata"]["annotations"][labels.REVISION] == revision
            and "deletionTimestamp" not in pod["metadata"]
        ]
        wanted = deployment["spec"]["replicas"]
        for _ in range(wanted - len(pods)):
            self._made += 1
            uid = f"p{self._made}"
            metadata = {"namespace": NAMESPACE, "name": f"{name}-{uid}", "uid": uid, "annotations": {labels.REVISION: revision}}
            self._put("pods", {"metadata": metadata, "spec": {}, "status": {"phase": "Pending"}}, "ADDED")
        for pod in sorted(pods, key=_rank)[: max(0, len(pods) - wanted)]:
            self.delete_pod(pod["metadata"]["uid"])

    def bind(self, uid: str) -> None:
        """It has a node, and the kubelet has said nothing yet."""
        self._change("pods", self._name(uid), spec={"nodeName": "node1"})

    def run(self, uid: str, *, ready: bool = True) -> None:
        """Its container runs."""
        name = self._name(uid)
        self._change("pods", name, spec={"nodeName": "node1"})
        self.status(
            uid,
            phase="Running",
            conditions=[{"type": "Ready", "status": "True" if ready else "False"}],
            containerStatuses=[{"name": "function", "state": {"running": {}}}],
        )

    def status(self, uid: str, **status: Any) -> None:
        name = self._name(uid)
        self._change("pods", name, status=status)

    def waiting(self, uid: str, reason: str, message: str = "") -> None:
        waiting = {"waiting": {"reason": reason, "message": message}}
        self.status(uid, containerStatuses=[{"name": "function", "image": "registry.test/python:1", "state": waiting}])

    def delete_pod(self, uid: str) -> None:
        """It has its grace."""
        pod = self.objects["pods", self._name(uid)]
        metadata = {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
        self._put("pods", {**pod, "metadata": metadata}, "MODIFIED")

    def gone(self, uid: str) -> None:
        pod = self.objects.pop(("pods", self._name(uid)))
        self._version += 1
        self._tell("pods", "DELETED", {**pod, "metadata": {**pod["metadata"], "resourceVersion": str(self._version)}})

    # -- ProviderApi ---------------------------------------------------------------------------------------------------
    async def list(
        self, path: str, *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> tuple[list[Object], str]:
        self.faults("list", path)
        plural = path.rpartition("/")[2]
        return [copy.deepcopy(obj) for (kind, _), obj in self.objects.items() if kind == plural], str(self._version)

    async def watch(
        self,
        path: str,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[Object, None]:
        plural, position = path.rpartition("/")[2], int(resource_version)
        while True:
            for version, kind, event in tuple(self._history):
                if version > position:
                    position = version
                    if kind == plural:
                        yield copy.deepcopy(event)
            woken = self._woken
            await woken.wait()

    async def get(self, path: str, /) -> Object:
        self.faults("get", path)
        _, obj = self._at(path)
        return copy.deepcopy(obj)

    async def merge_patch(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        self.faults("patch", path)
        (plural, name), obj = self._at(path)
        self.writes.append(("merge", f"{plural}/{name}", body))
        metadata = body.get("metadata") or {}
        if metadata.get("resourceVersion", obj["metadata"]["resourceVersion"]) != obj["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        if metadata.get("uid", obj["metadata"]["uid"]) != obj["metadata"]["uid"]:
            raise Conflict("Precondition failed: UID in precondition")
        annotations = {**obj["metadata"].get("annotations", {}), **metadata.get("annotations", {})}
        changed = {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}
        if "spec" in body:
            changed["spec"] = {**obj["spec"], **body["spec"]}
        return copy.deepcopy(self._put(plural, changed, "MODIFIED"))

    async def json_patch(self, path: str, operations: Sequence[Object], /, *, field_manager: str) -> Object:
        self.faults("patch", path)
        (plural, name), obj = self._at(path)
        self.writes.append(("json", f"{plural}/{name}", operations))
        test, add = operations
        replicas = obj["spec"]["replicas"]
        scale = {"spec": {"replicas": replicas} if replicas else {}}  # as the API server's, which leaves a zero out
        found: Any = scale
        for part in test["path"].split("/")[1:]:
            if part not in found:
                raise Invalid(f"test operation for path {test['path']} failed: missing path")
            found = found[part]
        if found != test["value"]:
            raise Invalid(f"testing value {test['path']} failed: test failed")
        return copy.deepcopy(self._put(plural, {**obj, "spec": {"replicas": add["value"]}}, "MODIFIED"))

    async def delete(self, path: str, *, uid: str | None = None) -> Object:
        self.faults("delete", path)
        (plural, name), obj = self._at(path)
        self.writes.append(("delete", f"{plural}/{name}", uid))
        if uid not in {None, obj["metadata"]["uid"]}:
            raise Conflict("Precondition failed: UID in precondition")
        self.delete_pod(obj["metadata"]["uid"])
        return obj

    # -- inside --------------------------------------------------------------------------------------------------------
    def _at(self, path: str) -> tuple[tuple[str, str], Object]:
        parts = path.removesuffix("/scale").split("/")
        key = (parts[-2], parts[-1])
        if key not in self.objects:
            raise NotFound(path)
        return key, self.objects[key]

    def _name(self, uid: str) -> str:
        return next(name for (plural, name), obj in self.objects.items() if plural == "pods" and obj["metadata"]["uid"] == uid)

    def _change(self, plural: str, name: str, **parts: dict[str, Any]) -> None:
        obj = self.objects[plural, name]
        self._put(plural, {**obj, **{part: {**obj[part], **values} for part, values in parts.items()}}, "MODIFIED")

    def _put(self, plural: str, obj: Object, change: str) -> Object:
        self._version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        self.objects[plural, obj["metadata"]["name"]] = obj
        self._tell(plural, change, obj)
        return obj

    def _tell(self, plural: str, change: str, obj: Object) -> None:
        self._history.append((self._version, plural, {"type": change, "object": obj}))
        woken, self._woken = self._woken, asyncio.Event()
        woken.set()


def _rank(pod: Object) -> tuple[bool, bool, bool, int]:
    status = pod["status"]
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
    cost = int(pod["metadata"]["annotations"].get(COST, 0))
    return "nodeName" in pod["spec"], status["phase"] == "Running", ready, cost
