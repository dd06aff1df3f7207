"""The load generator: a process of its own that invokes as fast as it is answered and prints what it saw as JSON.

`python -m bench.load` reads a `Plan` as JSON from standard input. It is a closed loop: each connection sends the next request when the
previous one is answered. The same program measures Kappa, RIE and the echo floor, so its own cost is in all of them alike.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import uvloop
from bench.client import Answer, AsyncConnection, BlockingConnection, ConnectionLost, request_bytes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to send."""

    host: str
    port: int
    paths: list[str]
    """Connection i uses path i modulo their number."""
    body: str
    connections: int = 1
    seconds: float = 3.0
    """Measured time; ignored when `requests` is given."""
    warmup_seconds: float = 0.5
    """Sent before, answered, not in the latencies."""
    requests: int | None = None
    """Per connection, instead of a time; then there is no warm-up."""
    expect: str | None = None
    """The exact body of a right answer; None takes any."""
    timeout: float = 60.0
    """Seconds for one answer."""
    headers: dict[str, str] = field(default_factory=dict)
    """Beside those of an SDK."""
    status: int = 200
    """Of a right answer."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came back."""

    requests: int
    """Measured ones."""
    sent: int
    """All, with warm-up: what CPU time is divided by."""
    seconds: float
    failures: dict[str, int] = field(default_factory=dict)
    """Other status codes, `function error`, `wrong answer`, `connection lost`."""
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of an ordered list lies; nearest rank, 0 for an empty list."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def summarise(latencies_ns: list[int], *, sent: int, seconds: float, failures: Counter[str]) -> Seen:
    """Percentiles in milliseconds of what was measured."""
    ordered = sorted(value / 1e6 for value in latencies_ns)
    return Seen(
        requests=len(ordered),
        sent=sent,
        seconds=seconds,
        failures=dict(failures),
        p50_ms=percentile(ordered, 0.5),
        p95_ms=percentile(ordered, 0.95),
        p99_ms=percentile(ordered, 0.99),
        max_ms=ordered[-1] if ordered else 0.0,
    )


def judge(answer: Answer | None, expect: bytes | None, *, status: int) -> str | None:
    """The name of the failure, or None for a right answer."""
    if answer is None:
        return "connection lost"
    if answer.status != status:
        return str(answer.status)
    if answer.function_error:
        return "function error"
    if expect is not None and answer.body != expect:
        return "wrong answer"
    return None


def one_at_a_time(plan: Plan) -> Seen:
    """One connection, blocking."""
    address = (plan.host, plan.port)
    expect = None if plan.expect is None else plan.expect.encode()
    connection = BlockingConnection(address, timeout=plan.timeout)
    request = request_bytes(plan.paths[0], plan.body.encode(), address=address, headers=plan.headers)
    latencies: list[int] = []
    failures: Counter[str] = Counter()
    sent = 0
    clock = time.perf_counter_ns
    start = clock()
    measured_from = start if plan.requests is not None else start + int(plan.warmup_seconds * 1e9)
    end = None if plan.requests is not None else measured_from + int(plan.seconds * 1e9)
    now = start
    while (now < end) if end is not None else (sent < (plan.requests or 0)):
        begun = now
        try:
            answer: Answer | None = connection.exchange(request)
        except (ConnectionLost, OSError):
            answer = None
            if failures["connection lost"] >= 100:
                raise
            connection.close()
            connection = BlockingConnection(address, timeout=plan.timeout)
        now = clock()
        sent += 1
        failure = judge(answer, expect, status=plan.status)
        if failure is not None:
            failures[failure] += 1
        elif begun >= measured_from:
            latencies.append(now - begun)
    connection.close()
    return summarise(latencies, sent=sent, seconds=(now - measured_from) / 1e9, failures=failures)


async def many_at_once(plan: Plan) -> Seen:
    """`plan.connections` connections on one event loop."""
    loop = asyncio.get_running_loop()
    address = (plan.host, plan.port)
    expect = None if plan.expect is None else plan.expect.encode()
    latencies: list[int] = []
    failures: Counter[str] = Counter()
    counts = Counter(sent=0)
    clock = time.perf_counter_ns
    finished: list[asyncio.Future[None]] = []
    connections: list[AsyncConnection] = []
    starts: list[Callable[[], None]] = []
    measured_from = end = 0

    async def open_connection(path: str) -> None:
        request = request_bytes(path, plan.body.encode(), address=address, headers=plan.headers)
        done: asyncio.Future[None] = loop.create_future()
        begun = 0
        left = plan.requests

        def send_next() -> None:
            nonlocal begun, left
            if left is not None:
                left -= 1
            counts["sent"] += 1
            begun = clock()
            connection.send(request)

        def answered(answer: Answer | None) -> None:
            now = clock()
            failure = judge(answer, expect, status=plan.status)
            if failure is not None:
                failures[failure] += 1
            elif begun >= measured_from:
                latencies.append(now - begun)
            if answer is None or (left <= 0 if left is not None else now >= end):
                done.set_result(None)
            else:
                send_next()

        _, connection = await loop.create_connection(lambda: AsyncConnection(answered), plan.host, plan.port)
        connections.append(connection)
        finished.append(done)
        starts.append(send_next)

    for index in range(plan.connections):
        await open_connection(plan.paths[index % len(plan.paths)])
    start = clock()
    measured_from = start if plan.requests is not None else start + int(plan.warmup_seconds * 1e9)
    end = measured_from + int(plan.seconds * 1e9)
    for send_first in starts:
        send_first()
    _, unanswered = await asyncio.wait(finished, timeout=(end - start) / 1e9 + plan.timeout)
    seconds = (clock() - measured_from) / 1e9
    failures["no answer"] += len(unanswered)
    for connection in connections:
        connection.close()
    return summarise(latencies, sent=counts["sent"], seconds=seconds, failures=+failures)


def run(plan: Plan) -> Seen:
    """Carry the plan out in a process of its own."""
    encoded = json.dumps(dataclasses.asdict(plan))
    ran = subprocess.run([sys.executable, "-m", "bench.load"], input=encoded, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"the load generator failed: {ran.stderr[-2000:]}")
    return Seen(**json.loads(ran.stdout))


def main() -> None:
    """Read a plan, carry it out, print what was seen."""
    plan = Plan(**json.load(sys.stdin))
    seen = one_at_a_time(plan) if plan.connections == 1 else uvloop.run(many_at_once(plan))
    json.dump(dataclasses.asdict(seen), sys.stdout)


if __name__ == "__main__":
    main()
