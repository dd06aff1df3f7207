"""A function that looks around in its pod and dials what it is told, and dials from elsewhere to compare.

It listens on three ports itself, of which functions may reach two at the gateways, for others to try.
"""

from __future__ import annotations

import json
from typing import Any

from kappa_cluster import Object, Release

LISTENING = (8080, 9000, 9443)
Address = tuple[str, int]

DIAL = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def dial(address):
    try:
        socket.create_connection(address, timeout=2).close()
    except OSError as error:
        return type(error).__name__
    return "reached"

def dial_all(addresses):
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(dial, map(tuple, addresses)))
"""
FOLDERS = ("/", "/etc", "/usr", "/var", "/var/runtime", "/run/kappa", "/var/task", "/opt", "/tmp")
DIAL_AND_PRINT = DIAL + "print(json.dumps(dial_all(json.loads(sys.argv[1]))))"
PROBE = (
    DIAL
    + f"""
import os

listening = [socket.create_server(("", port)) for port in {LISTENING}]

def words(path):
    with open(path, errors="replace") as file:
        return file.read()

def refusal(folder):
    path = os.path.join(folder, "written-by-a-function")
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror
    os.remove(path)
    return ""

def tokens():
    found = set()
    for root in ("/run", "/var", "/etc", "/opt", "/tmp", "/dev/shm", "/home", "/root", "/srv", "/mnt"):
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and os.path.getsize(path) < 65536 and os.access(path, os.R_OK):
                    if words(path).startswith("eyJ"):
                        found.add(os.path.realpath(path))
    return sorted(found)

def look():
    return {{
        "uid": os.getuid(),
        "status": dict(line.split(":", 1) for line in words("/proc/self/status").splitlines() if ":" in line),
        "environment": dict(os.environ),
        "supervisor": words("/proc/1/environ").split(chr(0)),
        "refusals": {{folder: refusal(folder) for folder in {FOLDERS}}},
        "tokens": [words(path) for path in tokens()],
        "token": words("/var/run/kappa/token"),
        "identity": sorted(name for name in os.listdir("/var/run/kappa") if not name.startswith("..")),
        "address": socket.gethostbyname(socket.gethostname()),
    }}

def handler(event, context):
    return dial_all(event["dial"]) if "dial" in event else look()
"""
)


def ask(release: Release, function: str, **event: Any) -> Any:
    """Invoke the probe that is deployed as `function`."""
    answer = release.client().invoke(FunctionName=function, Payload=json.dumps(event))
    said = json.load(answer["Payload"])
    assert "FunctionError" not in answer, said
    return said


def dial_from(release: Release, pod: Object, targets: dict[str, Address]) -> dict[str, str]:
    """What becomes of dials from a gateway's pod."""
    command = ("exec", pod["metadata"]["name"], "--", "python3", "-c", DIAL_AND_PRINT, json.dumps(list(targets.values())))
    return dict(zip(targets, json.loads(release.cluster.kubectl(*command, namespace=release.namespace)), strict=True))
