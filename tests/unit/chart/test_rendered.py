"""The chart, rendered without a cluster: settings that the processes know, rights, Pod Security, and values that are refused."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from kappa_gateway.cli.cluster import cluster
from kappa_gateway.kubernetes.prepare import ACCESS_KEY_SECRET, AUTHORITY_SECRET, LINK_SECRET, POSTGRESQL_SECRET, SIGNING_SECRET
from kappa_gateway.kubernetes.settings import ClusterSettings
from kappa_operator.settings import Settings as OperatorSettings
from rendered_chart import NAMESPACE, ChartError, needs_helm, one, pods, render, rules, variables

pytestmark = needs_helm
BINDING = "ValidatingAdmissionPolicyBinding"
ROOT = Path(__file__).parents[3]

EVERYTHING: dict[str, Any] = {
    "images": {"pullSecrets": ["registry"], "runtimes": {"python3.12": "registry.example/python:1"}},
    "auth": {"tokenAudiences": ["kappa"]},
    "functions": {
        "runtimeClassName": "gvisor",
        "priorityClassName": "low",
        "nodeSelector": {"pool": "functions"},
        "tolerations": [{"key": "functions", "operator": "Exists"}],
    },
    "postgresql": {"existingSecret": "database", "existingSecretKey": "url"},
    "blobs": {"s3": {"bucket": "code", "endpointUrl": "http://minio:9000", "region": "eu-west-1", "existingSecret": "minio"}},
    "aws": {"endpointUrl": "http://aws:4566", "endpointUrls": {"s3": "http://minio:9000"}, "existingSecret": "aws"},
    "gateway": {"allowedHosts": ["lambda.example"], "env": {"KAPPA_ASYNC_CONCURRENCY": 7}},
    "network": {"clusterCidrs": ["100.64.0.0/10"], "allowedEgress": ["10.0.0.5/32:5432"]},
    "monitoring": {"serviceMonitor": {"enabled": True}, "dashboard": {"enabled": True}},
}
PLACEHOLDERS = {
    "<metadata.name>": "kappa-gateway-0",
    "<metadata.namespace>": NAMESPACE,
    "<status.podIP>": "10.1.2.3",
    "<status.podIPs>": "10.1.2.3,fd00::3",
    "<database/url>": "postgresql://there",
}


@pytest.mark.parametrize(("part", "model"), [("gateway", ClusterSettings), ("operator", OperatorSettings)])
@pytest.mark.parametrize("values", [pytest.param({}, id="defaults"), pytest.param(EVERYTHING, id="everything")])
def test_every_variable_is_a_setting_that_the_process_accepts(
    part: str, model: type[Any], values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = one(render(**values), "Deployment", f"kappa-{part}")["spec"]["template"]["spec"]
    given = variables(pod)
    known = {f"KAPPA_{field.upper()}" for field in model.model_fields}
    assert {name for name in given if name not in known and not name.startswith("KAPPA_ENDPOINT_URL_")} == set()
    for name, value in given.items():
        monkeypatch.setenv(name, PLACEHOLDERS.get(value, value))
    settings = model()
    assert settings.namespace == NAMESPACE
    assert settings.link_name == f"kappa-gateway-links.{NAMESPACE}.svc"


def test_values_reach_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = one(render(**EVERYTHING), "Deployment", "kappa-gateway")["spec"]["template"]["spec"]
    for name, value in variables(pod).items():
        monkeypatch.setenv(name, PLACEHOLDERS.get(value, value))
    settings = ClusterSettings()
    assert settings.allowed_hosts == ("lambda.example",)
    assert settings.token_audiences == ("kappa",)
    assert settings.runtime_images == {"python3.12": "registry.example/python:1"}
    assert (settings.blobs_s3_bucket, settings.blobs_s3_region) == ("code", "eu-west-1")
    assert settings.postgres_dsn is not None
    assert settings.postgres_dsn.get_secret_value() == "postgresql://there"
    assert settings.async_concurrency == 7


def test_a_gateway_may_end_its_longest_invocation_before_it_is_killed() -> None:
    pod = one(render(limits={"timeoutSeconds": 60}), "Deployment", "kappa-gateway")["spec"]["template"]["spec"]
    given = variables(pod)
    assert given["KAPPA_TIMEOUT_MAX"] == given["KAPPA_DRAIN_SECONDS"] == "60"
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"] > 60


@pytest.mark.parametrize("values", [pytest.param({}, id="defaults"), pytest.param(EVERYTHING, id="everything")])
def test_every_pod_meets_restricted_pod_security_on_a_read_only_root(values: dict[str, Any]) -> None:
    for name, pod in pods(render(**values)):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert "memory" in container["resources"]["limits"], name


def test_pods_that_ask_nothing_of_the_api_server_have_no_token() -> None:
    without = {name for name, pod in pods(render()) if pod.get("automountServiceAccountToken") is False}
    assert without == {"StatefulSet kappa-postgresql", "Pod kappa-test-invoke"}


@pytest.mark.parametrize("part", ["gateway", "operator", "prepare", "renew"])
def test_no_rule_has_a_wildcard_and_no_secret_is_readable_outside_the_releases_namespace(part: str) -> None:
    found = rules(render(), part)
    assert found
    for kind, namespace, rule in found:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        if "secrets" in rule["resources"]:
            assert (kind, namespace) == ("Role", NAMESPACE)
            by_label = part == "gateway" and rule["verbs"] == ["list", "watch"]  # access keys; rights know no labels
            assert rule.get("resourceNames") or rule["verbs"] == ["create"] or by_label


def test_the_gateway_scales_and_the_operator_shapes_and_neither_does_the_others_work() -> None:
    objects = render()
    verbs: dict[tuple[str, str], set[str]] = {}
    for part in ("gateway", "operator"):
        for _, _, rule in rules(objects, part):
            for resource in rule["resources"]:
                verbs.setdefault((part, resource), set()).update(rule["verbs"])
    assert verbs["gateway", "deployments"] == {"get", "list", "watch"}
    assert "patch" in verbs["gateway", "deployments/scale"]
    assert ("operator", "deployments/scale") not in verbs
    assert ("operator", "pods") not in verbs
    assert verbs["operator", "functions"] == {"get", "list", "watch"}
    assert ("gateway", "customresourcedefinitions") not in verbs
    assert ("operator", "customresourcedefinitions") not in verbs


def test_with_named_namespaces_only_rights_about_the_cluster_itself_are_cluster_wide() -> None:
    objects = render(functions={"onlyNamespaces": ["one", "two"]})
    for part in ("gateway", "operator"):
        found = rules(objects, part)
        wide = {resource for kind, _, rule in found if kind == "ClusterRole" for resource in rule["resources"]}
        assert wide <= {"namespaces", "tokenreviews", "subjectaccessreviews"}
        assert {"one", "two"} <= {namespace for _, namespace, _ in found}
        pod = one(objects, "Deployment", f"kappa-{part}")["spec"]["template"]["spec"]
        assert variables(pod)["KAPPA_WATCH_NAMESPACES"] == "one,two"


def test_the_hook_may_touch_the_secrets_that_it_makes_and_calls_a_command_that_there_is() -> None:
    objects = render()
    (named,) = [rule for _, _, rule in rules(objects, "prepare") if "secrets" in rule["resources"] and "resourceNames" in rule]
    assert {*named["resourceNames"]} == {AUTHORITY_SECRET, LINK_SECRET, SIGNING_SECRET, ACCESS_KEY_SECRET, POSTGRESQL_SECRET}
    for kind, name in (("Job", "kappa-prepare"), ("CronJob", "kappa-renew"), ("Pod", "kappa-test-invoke")):
        (pod,) = [pod for each, pod in pods(objects) if each == f"{kind} {name}"]
        group, command, *arguments = pod["containers"][0]["args"]
        assert group == "cluster"
        parsed = cluster.commands[command].make_context(command, arguments)
        assert parsed.params, shlex.join(arguments)


def test_renewal_reads_the_authority_writes_the_certificate_and_may_do_nothing_else() -> None:
    found = {(*rule["resourceNames"], *rule["verbs"]) for kind, _, rule in rules(render(), "renew")}
    assert found == {(AUTHORITY_SECRET, "get"), (LINK_SECRET, "get", "patch")}
    assert not rules(render(certificates={"renewal": {"enabled": False}}), "renew")


def test_roles_are_checked_in_the_namespaces_that_are_served_for_everybody_but_the_gateway() -> None:
    def policies(**values: Any) -> dict[str, Any]:
        return {each["metadata"]["name"]: each["spec"] for each in render(**values) if each["kind"] == BINDING}

    everywhere = policies()
    assert {name: spec["policyName"] for name, spec in everywhere.items()} == {name: name for name in everywhere}
    assert all("matchResources" not in spec for spec in everywhere.values())
    some = policies(functions={"onlyNamespaces": ["one", "two"]})
    for spec in some.values():
        (expression,) = spec["matchResources"]["namespaceSelector"]["matchExpressions"]
        assert expression["values"] == ["one", "two"]
    objects = [each for each in render() if each["kind"] == "ValidatingAdmissionPolicy"]
    assert len(objects) == 2
    account = f"system:serviceaccount:{NAMESPACE}:kappa-gateway"
    for each in objects:
        assert account in str(each["spec"]["matchConditions"])
        assert each["spec"]["failurePolicy"] == "Fail"
    assert policies(auth={"restrictRoles": False}) == {}


def test_a_gateway_that_starts_or_leaves_is_out_of_the_service_and_not_killed() -> None:
    (container,) = one(render(), "Deployment", "kappa-gateway")["spec"]["template"]["spec"]["containers"]
    asked = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness")}
    assert asked == {"readiness": "/healthz", "liveness": "/livez"}


def test_where_there_is_a_database_the_chart_brings_none() -> None:
    def facts(**postgresql: Any) -> tuple[str | None, bool, bool]:
        objects = render(postgresql=postgresql)
        given = variables(one(objects, "Deployment", "kappa-gateway")["spec"]["template"]["spec"])
        (hook,) = [pod for name, pod in pods(objects) if name == "Job kappa-prepare"]
        password = any(argument.startswith("--postgresql-host") for argument in hook["containers"][0]["args"])
        return given.get("KAPPA_POSTGRES_DSN"), any(each["kind"] == "StatefulSet" for each in objects), password

    assert facts() == ("<kappa-postgresql/dsn>", True, True)
    assert facts(dsn="postgresql://there") == ("<kappa-postgresql-dsn/dsn>", False, False)
    assert facts(existingSecret="database", existingSecretKey="url") == ("<database/url>", False, False)
    assert facts(enabled=False) == (None, False, False)


def test_services_and_policies_select_the_pods_that_they_are_for() -> None:
    objects = render(**{**EVERYTHING, "postgresql": {}})
    labelled = [
        (each["metadata"]["name"], each["spec"]["template"]["metadata"]["labels"])
        for each in objects
        if each["kind"] in ("Deployment", "StatefulSet")
    ]
    for each in objects:
        selector = {
            "Service": lambda spec: spec["selector"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        }.get(each["kind"])
        if selector is not None:
            wanted = selector(each["spec"])
            matched = [name for name, labels in labelled if wanted.items() <= labels.items()]
            assert matched == [each["metadata"]["name"].removesuffix("-links")]


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads(one(render(**EVERYTHING), "ConfigMap", "kappa-dashboard")["data"]["kappa.json"])
    asked = {
        name.removesuffix("_total").removesuffix("_bucket")
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"kappa_\w+", target["expr"])
    }
    sources = [file.read_text() for folder in ("gateway", "operator") for file in (ROOT / folder / "src").rglob("*.py")]
    assert {name for name in asked if not any(f'"{name}"' in source for source in sources)} == set()
    assert len(asked) > 10


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        pytest.param({"replicas": 3}, "replicas", id="unknown"),
        pytest.param({"auth": {"mode": "off"}}, "/auth/mode", id="mode"),
        pytest.param({"gateway": {"replicas": 0}}, "/gateway/replicas", id="no gateway"),
        pytest.param({"gateway": {"env": {"PATH": "/tmp"}}}, "PATH", id="foreign variable"),
        pytest.param({"postgresql": {"dsn": "mysql://there"}}, "/postgresql/dsn", id="another database"),
        pytest.param({"functions": {"onlyNamespaces": ["One"]}}, "/functions/onlyNamespaces/0", id="no namespace"),
        pytest.param({"aws": {"endpointUrls": {"s3": "minio:9000"}}}, "/aws/endpointUrls/s3", id="no URL"),
        pytest.param({"network": {"allowedEgress": ["10.0.0.5"]}}, "/network/allowedEgress/0", id="no CIDR"),
        pytest.param({"region": "Europe"}, "/region", id="no region"),
    ],
)
def test_a_wrong_value_is_refused_and_named(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ChartError, match=complaint):
        render(**values)
