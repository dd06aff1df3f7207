"""Asynchronous events in a cluster while gateways, PostgreSQL and the function's pods are killed, and the books of what became of each.

The function tells a recorder, a pod that nobody kills, when it begins and when it ends an event; so what has run is known without asking
Kappa. In the end every event that was answered with 202 has run to its end or is a dead letter, and the queue counts as many as done as
there are. One that ended twice is a duplicate, and a line of a gateway's log says of its request id that it may run twice.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from cluster_faults import kill_container
from kappa_cluster import SCRIPTS, CommandError, Object, Release, eventually, run

RECORDER_PORT = 8080
RECORDER = f"""
import http.server, threading
lines, lock = open("/tmp/lines", "ab", buffering=0), threading.Lock()

class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with lock:
            lines.write(body)
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("", {RECORDER_PORT}), Recorder).serve_forever()
"""
# The network of a pod that has just started may not be open yet, and an answer of the recorder may come too late: what is said twice names
# the same run.
FUNCTION = f"""
import http.client, os, time

def say(what, request_id, run):
    for attempt in range(100):
        connection = http.client.HTTPConnection(os.environ["RECORDER"], {RECORDER_PORT}, timeout=5)
        try:
            connection.request("POST", "/", f"{{what}} {{request_id}} {{run}}\\n")
            assert connection.getresponse().status == 204
            return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise TimeoutError("the recorder cannot be reached")

def handler(event, context):
    run = os.urandom(8).hex()
    say("begun", context.aws_request_id, run)
    say("ended", context.aws_request_id, run)
"""
SENDERS = 4
CONCURRENCY = 4
"""Reserved for the function: the cluster may be small."""
BACK_SECONDS = 400.0
"""Until a killed container is ready again: kubelet waits longer each time."""
EVENTS_PER_ROUND = 20_000
"""How many events go with one round of kills at most."""


class Outcome(NamedTuple):
    """What it came to."""

    accepted: set[str]
    lost: set[str]
    dead: set[str]
    ended: Counter[str]
    """How often each event ran to its end, those whose 202 got lost on the way included."""
    done: int
    """Events that the queue recorded as done."""
    waiting: int
    unexplained: set[str]

    @property
    def duplicates(self) -> set[str]:
        return {event for event, times in self.ended.items() if times > 1}

    def describe(self) -> str:
        """One line with the numbers."""
        return (
            f"{len(self.accepted)} accepted, {len(self.lost)} lost, {self.done} done, {len(self.dead)} given up, "
            f"{len(self.duplicates)} ended more than once, of which {len(self.unexplained)} unexplained"
        )


class ClusterChaos:
    """One run. Use :func:`cluster_chaos`."""

    def __init__(self, release: Release, function: str, recorder: Object) -> None:
        self._cluster = release.cluster
        self._release = release
        self._function = function
        self._recorder = recorder
        self._accepted: list[str] = []
        self._explained: set[str] = set()
        """Every word of the lines that say what may run twice."""

    def run(self, events: int) -> Outcome:
        """Send that many, with every victim killed at least once meanwhile; returns when all have come to their end."""
        senders = [
            threading.Thread(
                target=self._send, args=(self._release.client(retries={"total_max_attempts": 1}), events), daemon=True
            )
            for _ in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        rounds = -(-events // EVENTS_PER_ROUND)
        kills: list[Callable[[], None]] = [
            lambda: self._kill_gateway(0),
            self._delete_function_pod,
            self._kill_database,
            lambda: self._kill_gateway(1),
            self._delete_function_pod,
        ] * rounds
        for number, kill in enumerate(kills, 1):
            self._wait_for(number * events // (len(kills) + 1))
            self._read_logs()  # before they are so long that kubelet cuts them
            kill()
        for sender in senders:
            sender.join()
        seconds = 180 + events / 20
        eventually(lambda: self._books()["Waiting"] == 0, what="no event waits any more", seconds=seconds, pause=1)
        return self._outcome()

    # -- sending -------------------------------------------------------------------------------------------------------
    def _send(self, client: Any, events: int) -> None:
        while len(self._accepted) < events:
            try:
                answer = client.invoke(FunctionName=self._function, InvocationType="Event", Payload=b"{}")
            except (BotoCoreError, ClientError):
                time.sleep(0.05)  # no answer, no promise
            else:
                self._accepted.append(answer["ResponseMetadata"]["RequestId"])

    def _wait_for(self, accepted: int) -> None:
        eventually(lambda: len(self._accepted) >= accepted, what=f"{accepted} events are accepted", seconds=120 + accepted / 20)

    # -- killing -------------------------------------------------------------------------------------------------------
    def _kill_gateway(self, number: int) -> None:
        """One with a log that is whole: the killed container's is kept until its successor's is."""

        def find() -> Object | None:
            pods = sorted(self._release.gateways(), key=lambda each: str(each["metadata"]["name"]))
            return pods[number] if len(pods) > number else None

        pod = eventually(find, what=f"{number + 1} gateways run")
        assert pod is not None
        name = pod["metadata"]["name"]
        before = _restarts(pod)
        kill_container(self._cluster, pod)
        self._wait_until_back(name, before)
        self._read_log(name, "--previous")

    def _kill_database(self) -> None:
        selector = "app.kubernetes.io/component=postgresql"
        (pod,) = self._cluster.list("pods", namespace=self._release.namespace, selector=selector)
        name, before = pod["metadata"]["name"], _restarts(pod)
        kill_container(self._cluster, pod)
        self._wait_until_back(name, before)

    def _wait_until_back(self, name: str, before: int) -> None:
        def back() -> bool:
            pod = self._cluster.get("pod", name, namespace=self._release.namespace)
            assert pod is not None, f"pod {name} is gone"
            return _restarts(pod) > before and _is_ready(pod)

        eventually(back, what=f"{name} is back", seconds=BACK_SECONDS)

    def _delete_function_pod(self) -> None:
        pods = eventually(lambda: self._release.pods(self._function), what="the function has a pod")
        name = pods[0]["metadata"]["name"]
        with suppress(CommandError):  # it may have gone by itself
            self._cluster.kubectl("delete", "pod", name, "--force", "--grace-period=0", namespace=self._release.functions)

    # -- what became of it -----------------------------------------------------------------------------------------------
    def _outcome(self) -> Outcome:
        ended: Counter[str] = Counter()
        name, namespace = self._recorder["metadata"]["name"], self._recorder["metadata"]["namespace"]
        for line in set(self._cluster.kubectl("exec", name, "--", "cat", "/tmp/lines", namespace=namespace).splitlines()):
            what, request_id, _ = line.split()
            ended[request_id] += what == "ended"
        books = self._books()
        dead = {each["EventId"] for each in self._kappa("async", "list", self._function)}
        self._read_logs()
        accepted = set(self._accepted)
        return Outcome(
            accepted=accepted,
            lost={event for event in accepted if not ended[event] and event not in dead},
            dead=dead,
            ended=+ended,
            done=books["Done"],
            waiting=books["Waiting"],
            unexplained={event for event, times in ended.items() if times > 1} - self._explained,
        )

    def _books(self) -> dict[str, Any]:
        """What the queue counts for the function."""
        try:
            found = self._kappa("async", "list")
        except CommandError:
            found = []  # the database is away
        return next((each for each in found if each["FunctionName"] == self._function), {"Waiting": -1, "Done": -1})

    def _kappa(self, *arguments: str) -> list[dict[str, Any]]:
        said = run(str(SCRIPTS / "kappa"), *arguments, "--output", "json", environment=self._release.environment())
        listed: list[dict[str, Any]] = json.loads(said)
        return listed

    # -- logs ------------------------------------------------------------------------------------------------------------
    def _read_logs(self) -> None:
        for pod in self._release.gateways():
            self._read_log(pod["metadata"]["name"])

    def _read_log(self, pod: str, *options: str) -> None:
        log = self._cluster.kubectl("logs", pod, "--tail=-1", *options, namespace=self._release.namespace)
        self._explained |= {word for line in log.splitlines() if "may run twice" in line for word in line.split()}


@contextmanager
def cluster_chaos(release: Release, function: str) -> Iterator[ClusterChaos]:
    """A function of that name whose runs are recorded, for the duration of the block."""
    cluster, name = release.cluster, f"{function}-recorder"
    labels = {"test/recorder": name}
    try:
        cluster.apply(_recorder(name, labels), namespace=release.functions)
        cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s", namespace=release.functions)
        recorder = cluster.get("pod", name, namespace=release.functions)
        assert recorder is not None
        cluster.apply(_way_to_it(name, labels, function=function), namespace=release.functions)
        release.apply_function(
            function,
            FUNCTION,
            reservedConcurrentExecutions=CONCURRENCY,
            environment={"variables": {"RECORDER": recorder["status"]["podIP"]}},
        )
        yield ClusterChaos(release, function, recorder)
    finally:
        cluster.kubectl("delete", "networkpolicy,pod", name, "--ignore-not-found", "--wait=false", namespace=release.functions)


def _recorder(name: str, labels: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "recorder",
                    "image": "kappa/control-plane:dev",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-c", RECORDER],
                    "readinessProbe": {"tcpSocket": {"port": RECORDER_PORT}, "periodSeconds": 1},
                }
            ],
        },
    }


def _way_to_it(name: str, labels: dict[str, str], *, function: str) -> Object:
    """Function pods reach no other pod by themselves."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": {"lambda.kappa.dev/function": function}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {"matchLabels": labels}}]}],
        },
    }


def _restarts(pod: Object) -> int:
    statuses = pod["status"].get("containerStatuses") or [{}]
    return int(statuses[0].get("restartCount", 0))


def _is_ready(pod: Object) -> bool:
    statuses = pod["status"].get("containerStatuses") or [{}]
    return bool(statuses[0].get("ready"))
