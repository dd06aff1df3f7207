"""``kappa`` as the first process of a container, which the kernel sends no signal that it has no handler for."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

KAPPA = Path(sys.executable).with_name("kappa")
ALONE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
"""The first process of namespaces of its own, as in a container."""
PATIENCE_SECONDS = 60


@pytest.mark.namespaces
def test_a_gateway_that_is_told_to_end_while_it_starts_ends(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespaces here")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_SECONDS)
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            f"""
apiVersion: v1
kind: Config
current-context: here
contexts: [{{name: here, context: {{cluster: here, user: here}}}}]
clusters: [{{name: here, cluster: {{server: "http://127.0.0.1:{silent.getsockname()[1]}"}}}}]
users: [{{name: here, user: {{}}}}]
""",
            encoding="utf-8",
        )
        key = tmp_path / "key"
        key.write_bytes(b"k" * 32)
        environment = os.environ | {
            "KUBECONFIG": str(kubeconfig),
            "KAPPA_SIGNING_KEY_FILE": str(key),
            "KAPPA_NAMESPACE": "kappa-system",
            "KAPPA_POD_NAME": "kappa-gateway-0",
            "KAPPA_POD_IP": "127.0.0.1",
            "KAPPA_PORT": "0",
        }
        with subprocess.Popen([*ALONE, str(KAPPA), "gateway"], env=environment) as outside:
            try:
                connection, _ = silent.accept()  # it starts, and waits for an answer of the API server
                with connection:
                    inside = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text(encoding="ascii").split()
                    os.kill(int(inside[0]), signal.SIGTERM)
                    assert outside.wait(PATIENCE_SECONDS) == 0
            finally:
                outside.kill()
