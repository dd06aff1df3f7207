"""`make chaos`: asynchronous events while gateway (its worker with it), supervisors, functions and PostgreSQL are killed with -9 every few
seconds. Nothing is lost.

`python -m chaos --events 100000 --every 3`. Events are sent over HTTP to a real `kappa dev`, whose queue is a file in one run and, where a
server is installed, PostgreSQL in another; each run of an event writes a line when it begins and one when it ends. In the end every event
that was answered with 202 has run to its end or is a dead letter. One that ended twice is a duplicate, and each is explained: a line of the
gateway's log says of its request id that it may run twice.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import postgres_dev
import postgres_server
import process_tree
from kappa_dev import KappaDev, kappa_dev
from kappa_gateway.cli.client import Client, ClientError

APP = """
import os, time
def handler(event, context):
    def say(what):
        os.write(out, f"{what} {context.aws_request_id}\\n".encode())
    out = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    say("begun")
    time.sleep(event["sleep"])
    say("ended")
    os.close(out)
"""
SETTINGS = {
    "KAPPA_ASYNC_RETRY_DELAYS": "0.2,0.2",
    "KAPPA_ASYNC_THROTTLE_DELAYS": "0.1,0.5",
    "KAPPA_ASYNC_CONCURRENCY": "16",
    "KAPPA_SANDBOX": "plain",
}
SENDERS = 8
SETTLE_SECONDS = 900.0
VICTIMS = ("gateway", "supervisor", "function")
REFUSED_SECONDS = 0.01
"""How long a sender waits that was told to try again."""


class Outcome(NamedTuple):
    """What a run of chaos came to."""

    accepted: int
    kills: dict[str, int]
    lost: set[str]
    dead: int
    """Given up by the rules: they were cut at every attempt."""
    repeated: int
    """Begun more than once."""
    duplicates: int
    """Ended more than once."""
    unexplained: set[str]

    @property
    def good(self) -> bool:
        return not self.lost and not self.unexplained


class Chaos:
    """One run."""

    def __init__(
        self, kappa: KappaDev, seen: Path, dice: random.Random, *, database: postgres_server.PostgresServer | None = None
    ) -> None:
        self._kappa = kappa
        self._database = database
        self._victims = VICTIMS if database is None else (*VICTIMS, "postgresql")
        self._seen = seen
        self._dice = dice
        self._accepted: list[str] = []
        self._kills: Counter[str] = Counter()
        self._up = threading.Event()

    def run(self, events: int, *, every: float) -> Outcome:
        """Send that many, killing something every so many seconds on average; returns when all has come to its end."""
        self._kappa.create_function("chaos", {"app.py": APP}, Environment={"Variables": {"SEEN": str(self._seen)}})
        self._up.set()
        senders = [threading.Thread(target=self._send, args=(events,)) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        while any(sender.is_alive() for sender in senders):
            time.sleep(self._dice.uniform(0.5, 1.5) * every)
            self._kill(self._dice.choice(self._victims))
        for sender in senders:
            sender.join()
        self._settle()
        return self._outcome()

    def _send(self, events: int) -> None:
        connection: http.client.HTTPConnection | None = None
        while len(self._accepted) < events:
            self._up.wait()
            try:
                connection = connection or http.client.HTTPConnection(urlsplit(self._kappa.endpoint).netloc, timeout=30)
                body = json.dumps({"sleep": 0.002})
                connection.request("POST", "/2015-03-31/functions/chaos/invocations", body, {"X-Amz-Invocation-Type": "Event"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 202 or answer.status >= 500, answer.status
                if answer.status == 202:
                    self._accepted.append(answer.headers["x-amzn-RequestId"])
                else:
                    time.sleep(REFUSED_SECONDS)
            except (http.client.HTTPException, OSError):
                if connection is not None:
                    connection.close()  # no answer, no promise
                connection = None
        if connection is not None:
            connection.close()

    def _kill(self, what: str) -> None:
        below = process_tree.descendants(self._kappa.pid)
        if what == "gateway":
            self._up.clear()
            self._kappa.kill()
            self._kappa.start()
            self._up.set()
        elif what == "postgresql":
            assert self._database is not None
            self._database.kill()
            self._database.start()
        else:
            victims = [each.pid for each in below if ("bootstrap" in process_tree.command(each.pid)) == (what == "function")]
            if not victims:
                return
            with suppress(ProcessLookupError):
                os.kill(self._dice.choice(victims), signal.SIGKILL)
        self._kills[what] += 1

    def _settle(self) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._events_wait():
            assert time.monotonic() < deadline, "events still wait"
            time.sleep(0.2)

    def _events_wait(self) -> bool:
        try:
            return any(one["Waiting"] for one in self._ask("/_kappa/events")["Functions"])
        except ClientError:
            return True  # the database, killed last, is not back yet

    def _outcome(self) -> Outcome:
        begun: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        for line in self._seen.read_text().splitlines():
            what, request_id = line.split()
            (begun if what == "begun" else ended)[request_id] += 1
        dead = self._dead()
        log = self._kappa.output
        duplicates = {request_id for request_id, times in ended.items() if times > 1}
        explained = {word for line in log.splitlines() if "may run twice" in line for word in line.split()}
        return Outcome(
            accepted=len(self._accepted),
            kills=dict(self._kills),
            lost={request_id for request_id in self._accepted if request_id not in ended and request_id not in dead},
            dead=len(dead),
            repeated=sum(times > 1 for times in begun.values()),
            duplicates=len(duplicates),
            unexplained=duplicates - explained,
        )

    def _dead(self) -> set[str]:
        found: set[str] = set()
        after = ""
        while page := self._ask("/_kappa/events/of/chaos", after=after)["DeadLetters"]:
            found |= {one["EventId"] for one in page}
            after = page[-1]["EventId"]
        return found

    def _ask(self, path: str, **query: str) -> Any:
        return Client(self._kappa.endpoint).ask("GET", path, query)


def chaos(folder: Path, *, events: int, every: float, seed: str) -> Outcome:
    """Run it in a folder of its own, with the queue in a file."""
    with kappa_dev(folder / "data", settings=SETTINGS) as kappa:
        return Chaos(kappa, folder / "seen", random.Random(seed)).run(events, every=every)


def chaos_on_postgresql(folder: Path, *, events: int, every: float, seed: str) -> Outcome:
    """The same with the queue in a PostgreSQL of its own, which is killed as well."""
    with postgres_server.postgres(durable=True) as database:
        settings = SETTINGS | {"POSTGRES_DSN": database.create_database("kappa")}
        command = (sys.executable, postgres_dev.__file__)
        with kappa_dev(folder / "data", settings=settings, command=command) as kappa:
            return Chaos(kappa, folder / "seen", random.Random(seed), database=database).run(events, every=every)


QUEUES = {"sqlite": chaos, "postgresql": chaos_on_postgresql}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=...", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="for each queue")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills, on average")
    parser.add_argument("--seed", default=str(time.time_ns()))
    parser.add_argument("--queue", nargs="+", choices=QUEUES, help="all that can be run here")
    chosen = parser.parse_args()
    queues = chosen.queue or [name for name in QUEUES if name == "sqlite" or postgres_server.binaries() is not None]
    outcomes = [_run(queue, chosen) for queue in queues]
    if not chosen.queue and len(queues) < len(QUEUES):
        print("not run on PostgreSQL: no server is installed")
    return 0 if all(outcome.good for outcome in outcomes) else 1


def _run(queue: str, chosen: argparse.Namespace) -> Outcome:
    print(f"queue in {queue}, seed {chosen.seed}", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kappa-chaos-") as folder:
        outcome = QUEUES[queue](Path(folder), events=chosen.events, every=chosen.every, seed=chosen.seed)
    print(f"accepted with 202     {outcome.accepted:>8,} and settled in {time.monotonic() - begun:.0f} s")
    print(f"killed                {outcome.kills}")
    print(f"lost                  {len(outcome.lost):>8,} {' '.join(sorted(outcome.lost)[:5])}")
    print(f"given up by the rules {outcome.dead:>8,}")
    print(f"begun more than once  {outcome.repeated:>8,}")
    print(f"ended more than once  {outcome.duplicates:>8,}, of which {len(outcome.unexplained)} unexplained", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
