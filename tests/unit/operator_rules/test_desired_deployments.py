"""Functions in, Deployments out: each folder below `desired` is one case, and its `deployment.yaml` is the whole object.

`KAPPA_WRITE_DESIRED=1 pytest` writes the expected objects anew; what has changed is then read in the diff.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import made
from kappa_core.resources import ValueSource
from kappa_crds.configuration import configuration_of
from kappa_operator.reconcile.deployment import deployment
from kappa_operator.reconcile.pods import pod_template
from kappa_operator.reconcile.revisions import Revision
from kappa_operator.reconcile.roles import service_account_name
from kappa_operator.settings import PodSettings, load

CASES = Path(__file__).parent / "desired"


@pytest.mark.parametrize("case", sorted(each.name for each in CASES.iterdir()))
def test_the_deployment_of_a_function(case: str) -> None:
    folder = CASES / case
    found = _deployment(
        yaml.safe_load((folder / "function.yaml").read_text()),
        load(**yaml.safe_load((folder / "settings.yaml").read_text())).pods,
    )
    expected = folder / "deployment.yaml"
    if os.environ.get("KAPPA_WRITE_DESIRED"):
        expected.write_text(yaml.safe_dump(found, sort_keys=False))
    assert found == yaml.safe_load(expected.read_text())


@pytest.mark.parametrize("case", sorted(each.name for each in CASES.iterdir()))
def test_a_pod_keeps_to_the_restricted_standard_and_holds_no_token_of_the_api_server(case: str) -> None:
    pod = yaml.safe_load((CASES / case / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} == {"emptyDir", "projected"}
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp", "/var/kappa", "/var/kappa/code/task", "/var/kappa/code/opt"}
    read_only = {mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")}
    assert read_only == {"/var/task", "/opt", "/var/run/kappa"}


def test_variables_of_a_function_are_not_in_its_pod() -> None:
    configuration = made.configuration(environment={"PASSWORD": "s3cret"})
    template = pod_template(
        configuration,
        image="i",
        pod_labels={},
        revision="r",
        service_account="s",
        settings=PodSettings(gateways="dns:links:9443", link_name="links"),
    )
    assert "s3cret" not in str(template)


def test_values_of_secrets_are_the_kubelets_to_find_and_never_variables_of_the_supervisor_itself() -> None:
    sources = {
        "PYTHONPATH": ValueSource(kind="Secret", name="paths", key="python"),
        "REGION_NAME": ValueSource(kind="ConfigMap", name="settings", key="region", optional=True),
    }
    template = pod_template(
        made.configuration(environment_from=sources),
        image="i",
        pod_labels={},
        revision="r",
        service_account="s",
        settings=PodSettings(gateways="dns:links:9443", link_name="links"),
    )
    variables = {each["name"]: each.get("valueFrom") for each in template["spec"]["containers"][0]["env"]}
    assert all(name.startswith("KAPPA_") for name in variables)
    assert variables["KAPPA_VALUE_PYTHONPATH"] == {"secretKeyRef": {"name": "paths", "key": "python"}}
    assert variables["KAPPA_VALUE_REGION_NAME"] == {"configMapKeyRef": {"name": "settings", "key": "region", "optional": True}}


def _deployment(spec: dict[str, Any], settings: PodSettings) -> dict[str, Any]:
    configuration = configuration_of(spec, code=made.code(), name="hello", account=made.ACCOUNT, region=made.REGION)
    owner = {
        "apiVersion": "lambda.kappa.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": "hello", "namespace": "shop", "uid": "uid-1"},
    }
    revision = Revision("uid-1.$LATEST.0123456789abcdef", "$LATEST", configuration)
    image = settings.image(spec["runtime"])
    assert image is not None
    account = service_account_name(configuration.role, account=made.ACCOUNT)
    return deployment(owner, revision, image=image, service_account=account, settings=settings)
