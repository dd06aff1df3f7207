"""Sixty seconds of mixed work: concurrency 32 over 20 functions while code is updated and handlers crash.

Every event carries a nonce and every function returns its own name, the generation of its code and the nonce. So each answer shows
whether it belongs to this request, to this function, and to code no older than what was live when the request was sent. Memory is read
while it runs, and afterwards nothing may be left of the process tree.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from bench import cold, servers, warm
from bench.client import Answer, AskingConnection, invocation, request_bytes
from bench.load import percentile
from bench.report import Report

from kappa_dev import RUNTIME, KappaDev, kappa_dev, zip_of

FUNCTIONS = 20
CONNECTIONS = 32
_MB = 1024 * 1024

INDEX_LAG_SECONDS = 1.0
"""Invoke's view of the functions may be this much older than the control plane's (design, section 8)."""

SOURCE = """\
import os, sys, time
NAME, GENERATION = "{name}", {generation}
def handler(event, context):
    kind = event["kind"]
    if kind == "raise":
        raise ValueError(event["nonce"])
    if kind == "exit":
        os._exit(3)
    if kind == "timeout":
        time.sleep(30)
    if kind == "print":
        print("x" * 2000)
    return {{"name": NAME, "generation": GENERATION, "nonce": event["nonce"], "asked": context.function_name}}
"""

KINDS = {"plain": 0.90, "print": 0.05, "raise": 0.03, "exit": 0.015, "timeout": 0.005}


@dataclass
class Tally:
    """What the run has seen."""

    answered: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    updates: int = 0
    examples: list[str] = field(default_factory=list)
    live: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """Per function: when each generation was confirmed as live."""

    def blame(self, what: str, example: object) -> None:
        self.wrong[what] += 1
        if len(self.examples) < 10:
            self.examples.append(f"{what}: {example}")


def code_of(name: str, generation: int) -> bytes:
    """The archive of one generation of one function."""
    return zip_of({"app.py": SOURCE.format(name=name, generation=generation)})


def check(tally: Tally, name: str, event: dict[str, str], answer: Answer | None, *, sent: float) -> None:
    """Compare an answer with what was asked; count what is wrong."""
    kind = event["kind"]
    if answer is None:
        tally.blame("connection lost", event)
        return
    if answer.status != 200:
        tally.blame(f"status {answer.status}", answer.body[:200])
        return
    expected_error = {"raise": event["nonce"], "exit": "exit", "timeout": "timed out"}.get(kind)
    if expected_error is not None:
        if not answer.function_error or expected_error not in answer.body.decode():
            tally.blame(f"no function error for {kind}", answer)
        return
    if answer.function_error:
        tally.blame("function error", answer.body[:200])
        return
    got = json.loads(answer.body)
    if got.get("name") != name or got.get("asked") != name:
        tally.blame("another function's answer", got)
    if got.get("nonce") != event["nonce"]:
        tally.blame("another request's answer", got)
    due = max(generation for when, generation in tally.live[name] if when <= sent - INDEX_LAG_SECONDS or generation == 0)
    if got.get("generation", -1) < due:
        tally.blame("older code than was live", f"{got}, due {due}")


async def _invoke_forever(kappa: KappaDev, tally: Tally, names: list[str], *, until: float, choice: random.Random) -> None:
    loop = asyncio.get_running_loop()
    where = warm.address_of(kappa)
    connection: AskingConnection | None = None
    while time.monotonic() < until:
        if connection is None:
            _, connection = await loop.create_connection(AskingConnection, where.host, where.port)
        name = choice.choice(names)
        kind = choice.choices(list(KINDS), list(KINDS.values()))[0]
        event = {"kind": kind, "nonce": f"{choice.getrandbits(64):016x}"}
        sent = time.monotonic()
        answer = await connection.ask(request_bytes(invocation(name), json.dumps(event).encode(), address=where))
        tally.answered += 1
        tally.kinds[kind] += 1
        if kind == "plain":
            tally.latencies.append((time.monotonic() - sent) * 1000)
        check(tally, name, event, answer, sent=sent)
        if answer is None:
            connection = None
    if connection is not None:
        connection.close()


def _update_forever(kappa: KappaDev, tally: Tally, names: list[str], *, until: float, choice: random.Random) -> None:
    client = kappa.client()
    while time.monotonic() < until:
        name = choice.choice(names)
        generation = tally.live[name][-1][1] + 1
        client.update_function_code(FunctionName=name, ZipFile=code_of(name, generation))
        cold.wait_until_settled(client, name)
        tally.live[name].append((time.monotonic(), generation))
        tally.updates += 1
        time.sleep(0.25)


async def _watch_memory(kappa: KappaDev, readings: list[tuple[float, float]], *, until: float) -> None:
    while time.monotonic() < until:
        await asyncio.sleep(2)
        gateway, tree = await asyncio.gather(
            asyncio.to_thread(servers.gateway_memory, kappa), asyncio.to_thread(servers.memory, kappa)
        )
        readings.append((gateway.resident / _MB, tree.proportional / _MB))


async def _soak(kappa: KappaDev, tally: Tally, names: list[str], *, seconds: float) -> list[tuple[float, float]]:
    seed = random.Random(20)
    until = time.monotonic() + seconds
    readings: list[tuple[float, float]] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(_invoke_forever(kappa, tally, names, until=until, choice=random.Random(seed.random())))
        choice = random.Random(seed.random())
        group.create_task(asyncio.to_thread(_update_forever, kappa, tally, names, until=until, choice=choice))
        group.create_task(_watch_memory(kappa, readings, until=until))
    return readings


def measure(report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None:  # one signature for all
    """Run it and count."""
    seconds = 15.0 if quick else 60.0
    tally = Tally()
    names = [f"soak-{index}" for index in range(FUNCTIONS)]
    left = ""
    with kappa_dev(scratch / "data") as kappa:
        for name in names:
            code = code_of(name, 0)
            cold.create_many(kappa, [name], code, Runtime=RUNTIME, Handler="app.handler", Timeout=2)
            tally.live[name] = [(time.monotonic(), 0)]
        readings = uvloop.run(_soak(kappa, tally, names, seconds=seconds))
        try:
            kappa.stop()
        except AssertionError as error:
            left = str(error)
    title = f"soak: {seconds:g} s, {CONNECTIONS} at once, {FUNCTIONS} functions, updates and crashes"
    report.add(title, "invocations", tally.answered, "")
    report.add(title, "code updates", tally.updates, "")
    report.add(title, "p50 of plain ones", percentile(sorted(tally.latencies), 0.5), "ms")
    report.add(title, "p99 of plain ones", percentile(sorted(tally.latencies), 0.99), "ms")
    foreign = tally.wrong["another function's answer"]
    report.add(title, "answered by the wrong function", foreign, "", at_most=0)
    report.add(title, "wrong answers of any kind", tally.wrong.total(), "", at_most=0)
    # The first third fills pools and caches; what grows after that would grow for ever.
    settled = readings[len(readings) // 3 :]
    half = len(settled) // 2
    for index, part in enumerate(("the gateway", "all processes")):
        early = sorted(reading[index] for reading in settled[:half])
        late = sorted(reading[index] for reading in settled[half:])
        growth = percentile(late, 0.5) - percentile(early, 0.5)
        report.add(title, f"memory of {part} at the end", percentile(late, 0.5), "MB")
        at_most = 5.0 if index == 0 else None
        report.add(title, f"growth of {part} between the second and the last third", growth, "MB", at_most=at_most)
    report.add(title, "processes left behind", 1 if left else 0, "", at_most=0)
    for example in [*tally.examples, *([left] if left else [])]:
        print(f"    {example}")
