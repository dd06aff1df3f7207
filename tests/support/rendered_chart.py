"""The chart as `helm template` renders it, without a cluster: objects to assert on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "kappa"
NAMESPACE = "kappa-system"
KUBERNETES = "1.34.0"
"""What `helm template` shall take the cluster for; its own default is older than the chart allows."""

Object = dict[str, Any]

needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


class ChartError(Exception):
    """helm refused; its message."""


def render(**values: Any) -> list[Object]:
    """Every object of the release `kappa`, hooks included. Values are nested dictionaries on top of the chart's own. Raises ChartError."""
    rendered = subprocess.run(
        ["helm", "template", "kappa", str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBERNETES, "--values", "-"],
        input=json.dumps(values),  # JSON is YAML
        capture_output=True,
        text=True,
        check=False,
    )
    if rendered.returncode != 0:
        raise ChartError(rendered.stderr)
    return [document for document in yaml.safe_load_all(rendered.stdout) if document]


def one(objects: Iterable[Object], kind: str, name: str) -> Object:
    """The object of that kind and name; there is exactly one."""
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects are {kind} {name}"
    return found[0]


def pods(objects: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """Name and spec of every pod that the release makes."""
    for each in objects:
        name = f"{each['kind']} {each['metadata']['name']}"
        if each["kind"] == "Pod":
            yield name, each["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, each["spec"]["template"]["spec"]
        elif each["kind"] == "CronJob":
            yield name, each["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def variables(pod: Object) -> dict[str, str]:
    """The variables of a pod's one container; those that come from elsewhere as `<field>` or `<secret>/<key>`."""
    (container,) = pod["containers"]
    found: dict[str, str] = {}
    for each in container.get("env", ()):
        source = each.get("valueFrom", {})
        if "fieldRef" in source:
            found[each["name"]] = f"<{source['fieldRef']['fieldPath']}>"
        elif "secretKeyRef" in source:
            found[each["name"]] = f"<{source['secretKeyRef']['name']}/{source['secretKeyRef']['key']}>"
        else:
            found[each["name"]] = each["value"]
    return found


def rules(objects: Iterable[Object], part: str) -> list[tuple[str, str, Object]]:
    """Every rule that binds to the ServiceAccount kappa-<part>: kind of the role, its namespace ("" for a ClusterRole), the rule."""
    objects = list(objects)
    found: list[tuple[str, str, Object]] = []
    for binding in objects:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        if [subject["name"] for subject in binding["subjects"]] != [f"kappa-{part}"]:
            continue
        reference = binding["roleRef"]
        namespace = binding["metadata"].get("namespace", "")
        (role,) = [
            each
            for each in objects
            if each["kind"] == reference["kind"]
            and each["metadata"]["name"] == reference["name"]
            and each["metadata"].get("namespace", "") == namespace
        ]
        found += [(reference["kind"], namespace, rule) for rule in role["rules"]]
    return found
