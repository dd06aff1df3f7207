"""What a Pod object says: how far it has come, why it does not get further, and how its container ended. Pure.

Stands between the objects of the API (plain dictionaries) and the provider of environments. Words that end up in a Function's
condition and in a caller's 503 are made here: they name what an administrator can act on.

    pending ─► bound ─► running ─► ready            deleted, or ended for good
                  └─► in trouble: no node, no image, no configuration, crashes
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from kappa_crds import labels
from kappa_crds.api import Object
from kappa_gateway.links.killed import Ending

CONTAINER: Final = "function"
DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"

_IMAGE: Final = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"}
_SOON_OVER: Final = {"ErrImagePull"}
"""The kubelet tries once more within seconds."""
_HOPELESS: Final = {
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
}
_MESSAGE_LENGTH: Final = 400
_KILLED: Final = 137
"""128 + SIGKILL."""


class Trouble(msgspec.Struct, frozen=True):
    """Why a pod does not come up."""

    words: str
    hopeless: bool
    """Waiting for this pod is of no use; another one may fare better, later."""


class PodState(msgspec.Struct, frozen=True):
    """What the provider keeps of a Pod object."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    revision: str
    node: str
    """Empty: not bound to one."""
    phase: str
    ready: bool
    running: bool
    """Its container runs."""
    deleted: bool
    """It is being deleted."""
    cost: int
    trouble: Trouble | None

    @property
    def ended(self) -> bool:
        """For good: it never runs again."""
        return self.phase in {"Succeeded", "Failed"}


class DeploymentState(msgspec.Struct, frozen=True):
    """What the provider keeps of a Deployment object."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    revision: str
    replicas: int
    failure: str
    """Why its ReplicaSet cannot make pods, such as a quota; empty if it can."""


def pod_state(pod: Object) -> PodState:
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    annotations = metadata.get("annotations") or {}
    conditions = _conditions(status)
    container = _container(status)
    return PodState(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        revision=annotations.get(labels.REVISION, ""),
        node=spec.get("nodeName") or "",
        phase=status.get("phase") or "Pending",
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        running="running" in (container.get("state") or {}),
        deleted=bool(metadata.get("deletionTimestamp")),
        cost=_integer(annotations.get(DELETION_COST)),
        trouble=_trouble(status, conditions),
    )


def deployment_state(deployment: Object) -> DeploymentState:
    metadata = deployment["metadata"]
    failure = _conditions(deployment.get("status") or {}).get("ReplicaFailure") or {}
    return DeploymentState(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        revision=(metadata.get("annotations") or {}).get(labels.REVISION, ""),
        replicas=int((deployment.get("spec") or {}).get("replicas") or 0),
        failure=_short(f"no pod can be made for it: {failure.get('message') or failure.get('reason')}")
        if failure.get("status") == "True"
        else "",
    )


def trimmed(obj: Object) -> Object:
    """For an informer of Pods or Deployments: what the two functions above read."""
    metadata = obj["metadata"]
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    kept = ("namespace", "name", "uid", "resourceVersion", "deletionTimestamp")
    annotations = metadata.get("annotations") or {}
    return {
        "metadata": {
            **{name: metadata[name] for name in kept if name in metadata},
            "annotations": {name: annotations[name] for name in (labels.REVISION, DELETION_COST) if name in annotations},
        },
        "spec": {name: spec[name] for name in ("nodeName", "replicas") if name in spec},
        "status": {
            name: status[name]
            for name in ("phase", "conditions", "initContainerStatuses", "containerStatuses", "reason", "message")
            if name in status
        },
    }


def exit_of(pod: Object, *, since: datetime) -> Ending | Literal["otherwise"] | None:
    """How the function's container ended after ``since`` if the function is to blame. None: no end of it is known (yet)."""
    status = pod.get("status") or {}
    container = _container(status)
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        ended = state.get("terminated")
        if ended is None or (at := _time(ended.get("finishedAt"))) is None or at < since:
            continue
        out_of_memory = ended.get("reason") == "OOMKilled"
        killed = out_of_memory or ended.get("exitCode") == _KILLED
        # Who is deleted or evicted is killed, too, once its grace is over.
        by_platform = pod["metadata"].get("deletionTimestamp") or status.get("reason") == "Evicted"
        return Ending("signal: killed", out_of_memory) if killed and not by_platform else "otherwise"
    return None


def _trouble(status: dict[str, Any], conditions: dict[str, dict[str, Any]]) -> Trouble | None:
    if status.get("phase") == "Failed":
        return Trouble(
            _short(f"its pod failed: {status.get('message') or status.get('reason') or 'no reason given'}"), hopeless=True
        )
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        # Waiting may help: a cluster autoscaler looks for exactly such pods.
        return Trouble(_short(f"no node has room for its pod: {scheduled.get('message') or 'unschedulable'}"), hopeless=False)
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason") or ""
        if reason in _HOPELESS or reason in _SOON_OVER:
            return Trouble(_short(_words(container, reason, waiting.get("message") or "")), hopeless=reason in _HOPELESS)
    return None


def _words(container: dict[str, Any], reason: str, message: str) -> str:
    if reason in _IMAGE:
        return f"the image {container.get('image') or '?'} cannot be pulled ({reason}): {message}"
    if reason == "CrashLoopBackOff":
        ended = (container.get("lastState") or {}).get("terminated") or {}
        how = ended.get("reason") or "Error"
        return (
            f"the container {container.get('name')} of its pod ends again and again ({how}, exit status {ended.get('exitCode')})"
        )
    return f"the container {container.get('name')} of its pod cannot be started ({reason}): {message}"


def _container(status: dict[str, Any]) -> dict[str, Any]:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            return dict(container)
    return {}


def _conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {condition.get("type", ""): condition for condition in status.get("conditions") or ()}


def _integer(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0  # as the ReplicaSet controller takes it


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_LENGTH else f"{line[: _MESSAGE_LENGTH - 1]}…"
