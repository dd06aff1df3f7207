"""A real cluster with Kappa installed from its chart, for the tests in tests/cluster: any KUBECONFIG does.

It types what a user types (helm, kubectl, aws, boto3) and reads what a user reads. One release serves all tests of a run; at the end it
is uninstalled, and nothing of it may be left. Where other things run in the same cluster, KAPPA_TEST_SHARED=1 keeps the release to
namespaces of its own.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.config
import pytest

from whole_payloads import read_payloads

CHART = Path(__file__).parents[2] / "charts" / "kappa"
SCRIPTS = Path(sys.executable).parent
ROLE = "arn:aws:iam::000000000000:role/lambda"
RUNTIME = "python3.13"
REGION = "us-east-1"

INSTALL_SECONDS = 240
"""Until a release is ready, image pulls included."""
SETTLE_SECONDS = 90.0
"""How long anything may take that is expected to happen; budgets are measured in bench/, not here."""

Object = dict[str, Any]
T = TypeVar("T")


def eventually(look: Callable[[], T], *, what: str, seconds: float = SETTLE_SECONDS, pause: float = 0.25) -> T:
    """What `look` returns as soon as it is truthy. Raises AssertionError with the last value when `seconds` are over."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}; last seen: {found!r}")
        time.sleep(pause)


class CommandError(Exception):
    """A command failed; its standard error."""


def run(*command: str, stdin: str | None = None, seconds: float = 300, environment: Mapping[str, str] | None = None) -> str:
    """Standard output of a command. Raises CommandError."""
    ran = subprocess.run(
        command,
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env=None if environment is None else dict(environment),
    )
    if ran.returncode != 0:
        raise CommandError(f"{' '.join(command)}: exit {ran.returncode}\n{ran.stdout[-2000:]}{ran.stderr[-4000:]}")
    return ran.stdout


class Cluster:
    """The cluster of KUBECONFIG, through kubectl and helm."""

    def kubectl(self, *arguments: str, namespace: str = "", stdin: str | None = None, seconds: float = 300) -> str:
        """Run kubectl; its output. Raises CommandError."""
        scope = ["--namespace", namespace] if namespace else []
        return run("kubectl", *scope, *arguments, stdin=stdin, seconds=seconds)

    def get(self, resource: str, name: str, *, namespace: str = "") -> Object | None:
        """One object, or None where there is none."""
        found = self.kubectl("get", resource, name, "--ignore-not-found", "--output=json", namespace=namespace)
        return json.loads(found) if found.strip() else None

    def list(self, resource: str, *, namespace: str = "", selector: str = "") -> list[Object]:
        """All objects, of a namespace or of the cluster."""
        scope = [] if namespace else ["--all-namespaces"]
        found = self.kubectl("get", resource, *scope, f"--selector={selector}", "--output=json", namespace=namespace)
        items: list[Object] = json.loads(found)["items"]
        return items

    def apply(self, manifest: Object | str, *, namespace: str = "") -> str:
        """`kubectl apply` of one manifest. Raises CommandError with what the API server says."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        return self.kubectl("apply", "--filename=-", namespace=namespace, stdin=text)

    def helm(self, *arguments: str, seconds: float = 600) -> str:
        """Run helm; its output. Raises CommandError."""
        return run("helm", *arguments, seconds=seconds)

    @contextmanager
    def namespace(self, name: str, *, account: str = "") -> Iterator[str]:
        """A namespace that ends with the block."""
        self.kubectl("create", "namespace", name)
        try:
            if account:
                self.kubectl("label", "namespace", name, f"lambda.kappa.dev/account-id={account}")
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


class Release:
    """The chart `kappa`, installed in a namespace of its own, and the means to talk to it."""

    def __init__(self, cluster: Cluster, *, namespace: str, functions: str, values: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.functions = functions
        """The namespace of account 000000000000."""
        self.values = dict(values)
        self._clients: list[Any] = []
        self._forwards: list[subprocess.Popen[bytes]] = []
        self._endpoint = ""
        self._keys: tuple[str, str] | None = None

    # -- helm ----------------------------------------------------------------------------------------------------------
    def install(self) -> str:
        """`helm install` until everything is ready; NOTES.txt."""
        return self._helm("install")

    def upgrade(self, **values: Any) -> str:
        """`helm upgrade` with further values on top."""
        return self._helm("upgrade", **values)

    def rollback(self) -> str:
        """`helm rollback` to the revision before."""
        return self.cluster.helm(
            "rollback",
            "kappa",
            "--namespace",
            self.namespace,
            "--wait",
            f"--timeout={INSTALL_SECONDS}s",
            seconds=INSTALL_SECONDS + 60,
        )

    def _helm(self, verb: str, **values: Any) -> str:
        both = json.dumps(_merged(self.values, values))
        command = ["helm", verb, "kappa", str(CHART), "--namespace", self.namespace, "--values", "-", "--wait"]
        try:
            return run(*command, f"--timeout={INSTALL_SECONDS}s", stdin=both, seconds=INSTALL_SECONDS + 60)
        except CommandError as error:
            raise AssertionError(f"{error}\n{self.diagnosis()}") from None

    def uninstall(self) -> None:
        """`helm uninstall`, once the functions are gone."""
        self.close()
        self.cluster.helm("uninstall", "kappa", "--namespace", self.namespace, "--wait", f"--timeout={INSTALL_SECONDS}s")

    def diagnosis(self) -> str:
        """What somebody who looks for the cause of a failed install would look at."""
        said = [self.cluster.kubectl("get", "pods,jobs", "--output=wide", namespace=self.namespace)]
        events = self.cluster.kubectl("get", "events", "--sort-by=.lastTimestamp", namespace=self.namespace)
        said.append("\n".join(line for line in events.splitlines() if "Warning" in line)[-2000:])
        for pod in self.cluster.list("pods", namespace=self.namespace):
            name = pod["metadata"]["name"]
            said += [f"--- {name}", self.logs(name)[-3000:]]
        return "\n".join(said)

    def logs(self, pod: str) -> str:
        """The end of a pod's log, and of the container before it where there was one."""
        said = ""
        for options in (["--previous"], []):
            with suppress(CommandError):
                said += self.cluster.kubectl("logs", pod, "--tail=200", *options, namespace=self.namespace)
        return said

    # -- the Lambda API ------------------------------------------------------------------------------------------------
    @property
    def endpoint(self) -> str:
        """The Service by its address where this machine reaches it, else through `kubectl port-forward`."""
        if not self._endpoint:
            service = self.cluster.get("service", "kappa-gateway", namespace=self.namespace)
            assert service is not None
            address, port = service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"]
            if _reachable(address, port):
                self._endpoint = f"http://{address}:{port}"
            else:
                self._endpoint = self._forwarded("service/kappa-gateway", port)
        return self._endpoint

    def endpoint_of(self, gateway: Object) -> str:
        """One gateway alone, by its pod."""
        address, port = gateway["status"]["podIP"], 9000
        if _reachable(address, port):
            return f"http://{address}:{port}"
        return self._forwarded(f"pod/{gateway['metadata']['name']}", port)

    @property
    def keys(self) -> tuple[str, str]:
        """The first access key, read as NOTES.txt says."""
        if self._keys is None:
            secret = self.cluster.get("secret", "kappa-access-key", namespace=self.namespace)
            assert secret is not None, "no Secret kappa-access-key"
            data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
            self._keys = (data["aws_access_key_id"], data["aws_secret_access_key"])
        return self._keys

    def client(self, *, endpoint: str = "", keys: tuple[str, str] | None = None, **config: Any) -> Any:
        """A boto3 client of the Service that never retries: a test wants the first answer."""
        key_id, secret = keys or self.keys
        settings = {"retries": {"total_max_attempts": 1}, "read_timeout": 120, "max_pool_connections": 64, **config}
        made = boto3.session.Session().client(
            "lambda",
            endpoint_url=endpoint or self.endpoint,
            region_name=REGION,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            config=botocore.config.Config(**settings),
        )
        read_payloads(made)
        self._clients.append(made)
        return made

    def environment(self) -> dict[str, str]:
        """Variables for commands that a user would type: the ones of NOTES.txt."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "KAPPA_", "PYTEST_"))}
        return inherited | {
            "PATH": f"{SCRIPTS}{os.pathsep}{inherited.get('PATH', '')}",
            "AWS_ENDPOINT_URL_LAMBDA": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.keys[0],
            "AWS_SECRET_ACCESS_KEY": self.keys[1],
            "AWS_DEFAULT_REGION": REGION,
            "AWS_PAGER": "",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def kappa(self, *arguments: str, endpoint: str = "") -> str:
        """Run `kappa` against the Service, or another endpoint; what it prints. Raises CommandError."""
        environment = self.environment() | ({"AWS_ENDPOINT_URL_LAMBDA": endpoint} if endpoint else {})
        return run(str(SCRIPTS / "kappa"), *arguments, environment=environment)

    def aws(self, *arguments: str) -> Any:
        """Run the AWS CLI against the Service; the JSON it prints, or None. Raises CommandError."""
        printed = run(str(SCRIPTS / "aws"), "--output", "json", *arguments, environment=self.environment())
        return json.loads(printed) if printed.strip() else None

    def gateways(self) -> list[Object]:
        """The gateways' pods that run and are not ending."""
        found = self.cluster.list("pods", namespace=self.namespace, selector="app.kubernetes.io/component=gateway")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Running"]

    def wait_whole(self) -> None:
        """Until everything that the chart has installed runs again. Raises AssertionError."""

        def whole() -> bool:
            found = self.cluster.list("deployments,statefulsets", namespace=self.namespace)
            return bool(found) and all(_is_whole(each) for each in found)

        eventually(whole, what="the release is whole", seconds=180)

    # -- functions -----------------------------------------------------------------------------------------------------
    def deployments(self, function: str) -> list[Object]:
        """Deployments of a function object."""
        return self.cluster.list("deployments", namespace=self.functions, selector=f"lambda.kappa.dev/function={function}")

    def pods(self, function: str) -> list[Object]:
        """Pods of a function object that are not ending."""
        found = self.cluster.list("pods", namespace=self.functions, selector=f"lambda.kappa.dev/function={function}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def manifest(self, name: str, source: str, **spec: Any) -> Object:
        """A Function with inline code."""
        return {
            "apiVersion": "lambda.kappa.dev/v1alpha1",
            "kind": "Function",
            "metadata": {"name": name},
            "spec": {"runtime": RUNTIME, "handler": "app.handler", "timeout": 30, "code": {"inline": source}, **spec},
        }

    def apply_function(self, name: str, source: str, **spec: Any) -> None:
        """`kubectl apply` of a Function with inline code, until it is Ready."""
        self.cluster.apply(self.manifest(name, source, **spec), namespace=self.functions)
        self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        """Until the Function's status speaks of its present spec and says Active."""

        def ready() -> bool:
            found = self.cluster.get("functions.lambda.kappa.dev", name, namespace=self.functions)
            status = (found or {}).get("status", {})
            assert found is not None
            facts = (status.get("observedGeneration"), status.get("state"), status.get("lastUpdateStatus"))
            return facts == (found["metadata"]["generation"], "Active", "Successful")

        eventually(ready, what=f"function {name} is Active", seconds=SETTLE_SECONDS)

    def delete_functions(self) -> None:
        """Delete every function, and wait until nothing of them runs."""
        self.cluster.kubectl("delete", "functions.lambda.kappa.dev", "--all", namespace=self.functions)
        eventually(
            lambda: not self.cluster.list("deployments,pods", namespace=self.functions, selector="lambda.kappa.dev/function"),
            what="Deployments and pods of deleted functions are gone",
        )

    # -- the end -------------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Close clients and the port-forward. Idempotent."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        for forward in self._forwards:
            forward.kill()
            forward.wait()
        self._forwards.clear()
        self._endpoint = ""

    def _forwarded(self, target: str, port: int) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            local = free.getsockname()[1]
        forward = subprocess.Popen(
            ["kubectl", "--namespace", self.namespace, "port-forward", target, f"{local}:{port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._forwards.append(forward)
        eventually(lambda: _reachable("127.0.0.1", local), what="the port-forward listens", seconds=20)
        return f"http://127.0.0.1:{local}"


def _reachable(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError:
        return False


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


@contextmanager
def installed(cluster: Cluster, **values: Any) -> Iterator[Release]:
    """A release for the duration of the block. Afterwards it is uninstalled, and what is left of it is an error."""
    suffix = secrets.token_hex(3)
    with cluster.namespace(f"kappa-test-{suffix}") as namespace, cluster.namespace(f"kappa-functions-{suffix}") as functions:
        only = [functions] if os.environ.get("KAPPA_TEST_SHARED") else []
        given = {"functions": {"namespace": functions, "onlyNamespaces": only}}
        release = Release(cluster, namespace=namespace, functions=functions, values=_merged(given, values))
        try:
            release.install()
            yield release
        finally:
            with suppress(CommandError):  # an install that failed half-way has no kinds yet
                release.delete_functions()
            release.uninstall()
            left = remains(cluster, namespace)
            volumes = claimed_volumes(cluster, namespace)
    assert not left, f"left behind by helm uninstall: {left}"
    gone = (namespace, functions)
    eventually(lambda: not any(cluster.get("namespace", name) for name in gone), what=f"namespaces {gone} are deleted cleanly")
    for volume in volumes:
        _release_volume(cluster, volume)


def remains(cluster: Cluster, namespace: str) -> list[str]:
    """What is there of an uninstalled release besides its Secrets and its volume, which it leaves on purpose."""
    inside = "deployments,statefulsets,jobs,services,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,configmaps"
    found = [
        f"{each['kind']} {each['metadata']['name']}"
        for each in cluster.list(inside, namespace=namespace, selector="app.kubernetes.io/part-of=kappa")
    ]
    wide = cluster.list("clusterroles,clusterrolebindings,roles,rolebindings", selector="app.kubernetes.io/part-of=kappa")
    found += [
        f"{each['kind']} {each['metadata']['name']}"
        for each in wide
        if each["metadata"]["name"].startswith(f"kappa:{namespace}:")
    ]
    policies = cluster.list(
        "validatingadmissionpolicies,validatingadmissionpolicybindings", selector="app.kubernetes.io/part-of=kappa"
    )
    found += [
        f"{each['kind']} {name}" for each in policies if (name := each["metadata"]["name"]).startswith(f"{namespace}.kappa-")
    ]
    return found


def claimed_volumes(cluster: Cluster, namespace: str) -> list[str]:
    """Volumes that claims of the namespace hold."""
    return [claim["spec"]["volumeName"] for claim in cluster.list("persistentvolumeclaims", namespace=namespace)]


def _release_volume(cluster: Cluster, name: str) -> None:
    """Make a volume that stays after its claim available to the next one, as an administrator would."""

    def released() -> bool:
        found = cluster.get("persistentvolume", name)
        return found is None or found["status"]["phase"] == "Released"

    eventually(released, what=f"volume {name} is released")
    if cluster.get("persistentvolume", name) is not None:
        cluster.kubectl("patch", "persistentvolume", name, "--type=json", '--patch=[{"op":"remove","path":"/spec/claimRef"}]')


def require_cluster() -> Cluster:
    """The cluster, or the end of the run with one line that says what is missing."""
    for tool in ("kubectl", "helm"):
        if shutil.which(tool) is None:
            pytest.exit(f"tests/cluster needs {tool} on PATH", returncode=1)
    cluster = Cluster()
    try:
        version = cluster.kubectl("version", "--output=json", seconds=30)
    except (CommandError, subprocess.TimeoutExpired) as error:
        pytest.exit(f"tests/cluster needs a cluster (KUBECONFIG): {error}", returncode=1)
    minor = int(re.sub(r"\D", "", json.loads(version)["serverVersion"]["minor"]))
    if minor < 30:
        pytest.exit(f"tests/cluster needs Kubernetes 1.30 or newer, this is 1.{minor}", returncode=1)
    return cluster


def _is_whole(workload: Object) -> bool:
    """Whether a Deployment or StatefulSet has the pods that it is to have, all of them new and ready."""
    wanted, status = workload["spec"]["replicas"], workload["status"]
    counts = {status.get(name, 0) for name in ("replicas", "readyReplicas", "updatedReplicas")}
    return counts == {wanted} and status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
