"""The operator as a process of this machine against the cluster of KUBECONFIG, in namespaces of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kappa_cluster import Cluster, Object, eventually

LOGS_TAIL = 4000


class OperatorProcess:
    """One replica. Its Lease, Secret and metrics are those of `release`; it serves `functions` alone."""

    def __init__(self, folder: Path, *, name: str, release: str, functions: str, settings: Mapping[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = name
        self._log = folder / f"{name}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("KAPPA_")}
        own = {
            "KAPPA_NAMESPACE": release,
            "KAPPA_POD_NAME": name,
            "KAPPA_HOST": "127.0.0.1",
            "KAPPA_PORT": str(self.port),
            "KAPPA_NAMESPACE_DEFAULT": functions,
            "KAPPA_WATCH_NAMESPACES": functions,
            "KAPPA_LEASE_SECONDS": "5",
            "KAPPA_LINGER_SECONDS": "1",
            **settings,
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kappa_operator"], env=inherited | own, stdout=log, stderr=subprocess.STDOUT
            )

    def ask(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages; 0 where it does not listen."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the series of a metric that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        total = 0.0
        for line in self.ask("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(each in series for each in wanted):
                total += float(value)
        return total

    @property
    def leads(self) -> bool:
        return self.metric("kappa_operator_leader") == 1

    @property
    def ready(self) -> bool:
        return self.ask("/readyz")[0] == 200

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def log(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-LOGS_TAIL:]


class Stage:
    """A release's namespace, one for functions, and the operators that were started for them."""

    def __init__(self, cluster: Cluster, folder: Path, *, release: str, functions: str) -> None:
        self.cluster = cluster
        self.release = release
        self.functions = functions
        self._folder = folder
        self._started: list[OperatorProcess] = []

    def operator(self, name: str = "one", **settings: str) -> OperatorProcess:
        """Start one and wait until it is ready, as leader or as standby."""
        started = OperatorProcess(self._folder, name=name, release=self.release, functions=self.functions, settings=settings)
        self._started.append(started)
        eventually(lambda: started.ready or started.process.poll() is not None, what=f"operator {name} is ready")
        assert started.process.poll() is None, started.log()
        return started

    def end(self) -> None:
        for each in self._started:
            if each.process.poll() is None:
                each.kill()

    # -- what a gateway and people do ----------------------------------------------------------------------------------
    def apply(self, kind: str, name: str, spec: Object, **metadata: Any) -> None:
        manifest = {
            "apiVersion": "lambda.kappa.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, **metadata},
            "spec": spec,
        }
        self.cluster.apply(manifest, namespace=self.functions)

    def function(self, name: str, **spec: Any) -> None:
        """Apply a Function, and settle it as the gateway would."""
        wanted = {"runtime": "python3.13", "handler": "app.handler", "code": {"blob": BLOB}, "timeout": 3, **spec}
        self.apply("Function", name, wanted)
        status = {"state": "Active", "lastUpdateStatus": "Successful", "serving": {**wanted, "role": ROLE}}
        self.cluster.kubectl(
            "patch",
            "functions.lambda.kappa.dev",
            name,
            "--subresource=status",
            "--type=merge",
            f"--patch={json.dumps({'status': status})}",
            namespace=self.functions,
        )

    def version(self, function: str, number: int, **metadata: Any) -> None:
        spec = {"functionName": function, "version": number, "runtime": "python3.13", "handler": "app.handler", "role": ROLE}
        self.apply("FunctionVersion", f"{function}.{number}", {**spec, "code": {"blob": BLOB}}, **metadata)

    def alias(self, function: str, name: str, version: str) -> None:
        self.apply("Alias", f"{function}.{name}", {"functionName": function, "name": name, "functionVersion": version})

    # -- what there is -------------------------------------------------------------------------------------------------
    def deployments(self, function: str = "") -> list[Object]:
        selector = f"lambda.kappa.dev/function={function}" if function else "lambda.kappa.dev/function"
        return self.cluster.list("deployments", namespace=self.functions, selector=selector)

    def versions_deployed(self, function: str) -> list[str]:
        notes = [each["metadata"]["annotations"]["lambda.kappa.dev/revision"] for each in self.deployments(function)]
        return sorted(each.split(".")[1] for each in notes)

    def condition(self, kind: str, name: str, type_: str = "Ready") -> tuple[str, str] | None:
        found = self.cluster.get(f"{kind}.lambda.kappa.dev", name, namespace=self.functions) or {}
        for each in found.get("status", {}).get("conditions", []):
            if each["type"] == type_:
                return each["status"], each["reason"]
        return None

    def until_condition(self, kind: str, name: str, expected: tuple[str, str]) -> None:
        eventually(lambda: self.condition(kind, name) == expected, what=f"{kind} {name} says {expected}")


BLOB = {"sha256": "a" * 64, "size": 100, "unzippedSize": 200, "source": "upload"}
ROLE = "arn:aws:iam::000000000000:role/lambda"


@contextmanager
def stage(cluster: Cluster, folder: Path, *, suffix: str) -> Iterator[Stage]:
    """Namespaces with the links' authority; the one for functions admits pods of the restricted standard only."""
    with cluster.namespace(f"kappa-operator-{suffix}") as release, cluster.namespace(f"kappa-operated-{suffix}") as functions:
        cluster.kubectl("label", "namespace", functions, "pod-security.kubernetes.io/enforce=restricted")
        cluster.kubectl("create", "secret", "generic", "kappa-link-tls", "--from-literal=ca.crt=PEM", namespace=release)
        made = Stage(cluster, folder, release=release, functions=functions)
        try:
            yield made
        finally:
            made.end()
