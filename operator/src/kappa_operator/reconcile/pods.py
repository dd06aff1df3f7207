"""The pod of a function revision: one container, the supervisor and the runtime in it, under the restricted Pod Security standard.

Everything that a pod is follows from the revision's configuration and from settings that all functions share. A pod holds nothing
that its function may not know: code and variables come over the link, after it has shown which pod it is. Values of Secrets and
ConfigMaps come from the kubelet alone, so no part of Kappa needs a right to read them.
"""

from __future__ import annotations

import math
from typing import Final

from kappa_core.limits import UNZIPPED_BYTES
from kappa_core.resources import Configuration
from kappa_crds import labels
from kappa_crds.api import Object
from kappa_crds.configuration import value_reference
from kappa_operator.settings import PodSettings

CONTAINER: Final = "function"
USER: Final = 10001
MB_PER_CORE: Final = 1769  # docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html: one vCPU
DRAIN_SECONDS: Final = 30
"""Beyond the function's timeout, for its end to be told."""
TOKEN_SECONDS: Final = 3600
LINK_AUTHORITY: Final = "kappa-link-ca"
"""The ConfigMap with the authority of the gateways' certificates."""
IDENTITY_DIR: Final = "/var/run/kappa"
CODE_DIR: Final = "/var/kappa/code"
"""Where the supervisor unpacks. Each volume below it is mounted a second time, read-only, where AWS has it."""
VALUE_PREFIX: Final = "KAPPA_VALUE_"
"""Before the name of a function's variable that comes from a Secret or a ConfigMap."""
_CODE_BYTES: Final = 2 * UNZIPPED_BYTES
"""Twice what code may have, because a volume counts blocks: 10,000 small files take 40 MB more than they hold."""
_LOST_NODE: Final = tuple(
    {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    for taint in ("not-ready", "unreachable")
)
"""Kubernetes' default is five minutes, for which a lost pod would be counted as one."""
_ARCHITECTURES: Final = {"x86_64": "amd64", "arm64": "arm64"}


def pod_template(
    configuration: Configuration,
    *,
    image: str,
    pod_labels: dict[str, str],
    revision: str,
    service_account: str,
    settings: PodSettings,
) -> Object:
    """``spec.template`` of the revision's Deployment."""
    spec: Object = {
        "serviceAccountName": service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": configuration.timeout + DRAIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {**settings.node_selector, "kubernetes.io/arch": _ARCHITECTURES[configuration.architectures[0]]},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": pod_labels},
            }
        ],
        "containers": [_container(configuration, image=image, settings=settings)],
        "volumes": [
            {"name": "task", "emptyDir": {"sizeLimit": str(_CODE_BYTES)}},
            {"name": "opt", "emptyDir": {"sizeLimit": str(_CODE_BYTES)}},
            {"name": "tmp", "emptyDir": _temporary(configuration, settings)},
            {"name": "kappa", "emptyDir": {"sizeLimit": str(_CODE_BYTES)}},
            {"name": "identity", "projected": {"defaultMode": 0o644, "sources": _identity()}},
        ],
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.runtime_class_name is not None:
        spec["runtimeClassName"] = settings.runtime_class_name
    if settings.priority_class_name is not None:
        spec["priorityClassName"] = settings.priority_class_name
    spec["tolerations"] = [*(dict(each) for each in settings.tolerations), *_LOST_NODE]
    return {"metadata": {"labels": pod_labels, "annotations": {labels.REVISION: revision}}, "spec": spec}


def _container(configuration: Configuration, *, image: str, settings: PodSettings) -> Object:
    memory = configuration.memory_size + settings.memory_allowance_mib
    # What is written to a /tmp in memory counts to the container. Nobody has to keep that free: most functions write next to nothing.
    most = memory + (configuration.ephemeral_storage_mb if _in_memory(configuration, settings) else 0)
    cpu = f"{math.ceil(configuration.memory_size * 1000 / MB_PER_CORE)}m"
    limits = {"memory": f"{most}Mi"}
    if settings.cpu_limit:
        limits["cpu"] = cpu
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "env": [
            {"name": "KAPPA_POD_NAME", "valueFrom": _field("metadata.name")},
            {"name": "KAPPA_POD_NAMESPACE", "valueFrom": _field("metadata.namespace")},
            {"name": "KAPPA_POD_UID", "valueFrom": _field("metadata.uid")},
            {"name": "KAPPA_GATEWAYS", "value": settings.gateways},
            {"name": "KAPPA_LINK_NAME", "value": settings.link_name},
            {"name": "KAPPA_CODE_DIR", "value": CODE_DIR},
            *_values(configuration),
        ],
        "resources": {"requests": {"cpu": cpu, "memory": f"{memory}Mi"}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "task", "mountPath": "/var/task", "readOnly": True},
            {"name": "opt", "mountPath": "/opt", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the function's own
            {"name": "kappa", "mountPath": "/var/kappa"},
            {"name": "task", "mountPath": f"{CODE_DIR}/task"},
            {"name": "opt", "mountPath": f"{CODE_DIR}/opt"},
            {"name": "identity", "mountPath": IDENTITY_DIR, "readOnly": True},
        ],
    }


def _values(configuration: Configuration) -> list[Object]:
    """Variables of the function that the kubelet looks up. Not under their own names: the supervisor must not start with the function's
    ``PYTHONPATH``."""
    return [
        {"name": f"{VALUE_PREFIX}{name}", "valueFrom": value_reference(source)}
        for name, source in configuration.value_sources.items()
    ]


def _in_memory(configuration: Configuration, settings: PodSettings) -> bool:
    return configuration.ephemeral_storage_mb <= settings.tmp_in_memory_mib


def _temporary(configuration: Configuration, settings: PodSettings) -> Object:
    """``/tmp``. In memory it ends at its size, with ENOSPC as on AWS; on a disk the kubelet evicts a pod that goes over the size."""
    size: Object = {"sizeLimit": f"{configuration.ephemeral_storage_mb}Mi"}
    return {"medium": "Memory", **size} if _in_memory(configuration, settings) else size


def _identity() -> list[Object]:
    """Who the pod is, and by whose word it knows a gateway."""
    token = {"audience": labels.TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    authority = {"name": LINK_AUTHORITY, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    return [{"serviceAccountToken": token}, {"configMap": authority}]


def _field(path: str) -> Object:
    return {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}
