"""A gateway of a cluster as a process of this machine, against the API server of KUBECONFIG, in namespaces of its own.

For what needs a real API server and no pods: callers, rights, the settler. It runs with the rights of KUBECONFIG, not with the chart's.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore.config

from kappa_cluster import REGION, SCRIPTS, Cluster

START_SECONDS = 60.0


class ClusterGatewayProcess:
    """See the module. Use :func:`gateway_process`."""

    def __init__(self, cluster: Cluster, folder: Path, *, namespace: str, functions: str, settings: dict[str, str]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.functions = functions
        """The namespace of account 000000000000."""
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Any] = []
        self.endpoint = ""

    def start(self) -> None:
        """Start it; returns when `/healthz` answers 200. Raises AssertionError with its output when it does not."""
        port, link_port = _free_port(), _free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "KAPPA_", "PYTEST_"))}
        given = {
            "KAPPA_NAMESPACE": self.namespace,
            "KAPPA_NAMESPACE_DEFAULT": self.functions,
            "KAPPA_WATCH_NAMESPACES": self.functions,
            "KAPPA_POD_NAME": f"gateway-{port}",
            "KAPPA_HOST": "127.0.0.1",
            "KAPPA_PORT": str(port),
            "KAPPA_LINK_PORT": str(link_port),
            "KAPPA_LINK_TLS_DIR": str(self._folder / "link-tls"),
            "KAPPA_SIGNING_KEY_FILE": str(self._folder / "signing" / "key"),
            "KAPPA_LINK_TOKEN_FILE": str(self._folder / "token"),
            "KAPPA_CACHE_DIR": str(self._folder / "cache"),
            "KAPPA_REGION": REGION,
            "PYTHONUNBUFFERED": "1",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [SCRIPTS / "kappa", "gateway"],
                env=inherited | given | self._settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while self.status("/healthz") != 200:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"kappa gateway did not become ready:\n{self.output}")
            time.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM, and its exit status. Idempotent."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"kappa gateway did not end:\n{self.output}") from None

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def keys(self) -> tuple[str, str]:
        """The first access key."""
        secret = self.cluster.get("secret", "kappa-access-key", namespace=self.namespace)
        assert secret is not None
        data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
        return data["aws_access_key_id"], data["aws_secret_access_key"]

    def client(self, keys: tuple[str, str] | None = None) -> Any:
        """A boto3 client that never retries."""
        key_id, secret = keys or self.keys
        config = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=60)
        made = boto3.session.Session().client(
            "lambda",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            config=config,
        )
        self._clients.append(made)
        return made

    def status(self, path: str) -> int:
        """The HTTP status of a GET; 0 where nobody answers."""
        return self.request("GET", path)[0]

    def request(
        self, method: str, path: str, *, token: str = "", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """A request with a bearer token, or with nothing: its status and body. Status 0 where nobody answers."""
        sent = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        made = urllib.request.Request(f"{self.endpoint}{path}", method=method, headers=sent, data=body)
        try:
            with urllib.request.urlopen(made, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def _log(self) -> Path:
        return self._folder / "gateway.log"


@contextmanager
def gateway_process(cluster: Cluster, folder: Path, **settings: str) -> Iterator[ClusterGatewayProcess]:
    """A started gateway with Secrets as the chart's hook makes them. At the end it and its namespaces are gone."""
    suffix = secrets.token_hex(3)
    with ExitStack() as stack:
        namespace = stack.enter_context(cluster.namespace(f"kappa-test-gateway-{suffix}"))
        functions = stack.enter_context(cluster.namespace(f"kappa-test-functions-{suffix}"))
        subprocess.run(
            [SCRIPTS / "kappa", "cluster", "prepare", "--no-crds", "--namespace", namespace], check=True, capture_output=True
        )
        for name, entries in (("kappa-link-tls", ("tls.crt", "tls.key", "ca.crt")), ("kappa-signing", ("key",))):
            secret = cluster.get("secret", name, namespace=namespace)
            assert secret is not None
            target = folder / re.sub("^kappa-", "", name)
            target.mkdir(parents=True)
            for entry in entries:
                (target / entry).write_bytes(base64.b64decode(secret["data"][entry]))
        (folder / "token").write_text("no other gateway asks")
        gateway = ClusterGatewayProcess(cluster, folder, namespace=namespace, functions=functions, settings=settings)
        stack.callback(gateway.stop)
        gateway.start()
        yield gateway


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
