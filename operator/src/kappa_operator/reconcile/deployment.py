"""Deployments of a function: one for each live revision, made at zero and never rolled; the others go once they have no pod.

How many pods there are is the scaler's, from the first on; nothing here ever writes ``replicas`` of a Deployment that exists. What a
pod looks like can change with Kappa itself (images, settings): a Deployment without pods takes its new shape then, one with pods
keeps the old one until it is at zero again, because another template would replace pods that invocations run on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from kappa_crds import labels, names
from kappa_crds.api import Object
from kappa_operator.reconcile.compare import digest
from kappa_operator.reconcile.owned import MANAGED, owner_reference
from kappa_operator.reconcile.pods import pod_template
from kappa_operator.reconcile.revisions import Revision
from kappa_operator.settings import PodSettings

TEMPLATE_DIGEST: Final = "lambda.kappa.dev/template-digest"
"""Annotation of a Deployment: what its pod template was made from. The template itself comes back with the API server's defaults."""
PROGRESS_SECONDS: Final = 600
"""Longer than a cluster takes to bring a node; what a waiter is told, and when, is the scaler's."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be done about the Deployments of one function."""

    create: tuple[Object, ...]
    reshape: tuple[tuple[Object, Object], ...]
    """Of each: as it is, as it should be."""
    delete: tuple[Object, ...]
    unneeded_since: dict[str, float]
    """By uid: when each of those that may be deleted later was first seen without use."""
    again: float | None
    """Seconds after which one of those is to be deleted; None: not by the passing of time."""


def deployment(owner: Object, revision: Revision, *, image: str, service_account: str, settings: PodSettings) -> Object:
    """The Deployment of one revision, as it is created; ``owner`` is the Function object."""
    name, namespace = owner["metadata"]["name"], owner["metadata"]["namespace"]
    selector = {labels.FUNCTION: name, labels.REVISION_HASH: names.revision_hash(revision.revision)}
    template = pod_template(
        revision.configuration,
        image=image,
        pod_labels={**MANAGED, **selector},
        revision=revision.revision,
        service_account=service_account,
        settings=settings,
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names.deployment_name(name, revision.revision),
            "namespace": namespace,
            "labels": {**MANAGED, **selector},
            "annotations": {labels.REVISION: revision.revision, TEMPLATE_DIGEST: digest(template)},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "replicas": 0,
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": PROGRESS_SECONDS,
            "selector": {"matchLabels": selector},
            "template": template,
        },
    }


def plan(
    desired: Iterable[Object],
    existing: Iterable[Object],
    *,
    unneeded_since: Mapping[str, float],
    now: float,
    linger_seconds: float,
) -> Plan:
    """``existing`` are the Deployments that the function owns; ``now`` and ``unneeded_since`` are of any one clock, in seconds."""
    wanted = {each["metadata"]["name"]: each for each in desired}
    there = {each["metadata"]["name"]: each for each in existing}
    reshape, delete, waiting = [], [], {}
    for name, found in there.items():
        if found["metadata"].get("deletionTimestamp") or not has_no_pod(found):
            continue
        if name in wanted:
            if _template_digest(found) != _template_digest(wanted[name]):
                reshape.append((found, wanted[name]))
            continue
        since = unneeded_since.get(found["metadata"]["uid"], now)
        if now - since >= linger_seconds:
            delete.append(found)
        else:
            waiting[found["metadata"]["uid"]] = since
    return Plan(
        create=tuple(each for name, each in wanted.items() if name not in there),
        reshape=tuple(reshape),
        delete=tuple(delete),
        unneeded_since=waiting,
        again=min((since + linger_seconds - now for since in waiting.values()), default=None),
    )


def has_no_pod(found: Object) -> bool:
    """Whether a Deployment is asked for none, has none, and its controller has seen that."""
    status = found.get("status") or {}
    return (
        found["spec"].get("replicas") == 0
        and not status.get("replicas")
        and status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    )


def refused_pods(found: Object) -> str | None:
    """Why the API server takes none of its pods (a quota, an admission), if it does not."""
    for condition in (found.get("status") or {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return str(condition.get("message") or condition.get("reason") or "pods are refused")
    return None


def _template_digest(found: Object) -> str | None:
    value: str | None = (found["metadata"].get("annotations") or {}).get(TEMPLATE_DIGEST)
    return value
