"""A thousand functions that exist and do nothing: how fast they are made, what each costs the gateway, how long a restart takes."""

from __future__ import annotations

import time
from pathlib import Path

from bench import cold, servers, warm
from bench.client import BlockingConnection
from bench.report import Report

from kappa_dev import RUNTIME, kappa_dev, zip_of

_MB = 1024 * 1024


def measure(report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None:  # one signature for all
    """Define them, end the gateway, start it again on the same data."""
    count = 100 if quick else 1000
    title = f"defined: {count} functions, none running"
    data = scratch / "data"
    with kappa_dev(data) as kappa:
        cold.create_many(kappa, ["first"], zip_of({"app.py": warm.SOURCE}), Runtime=RUNTIME, Handler="app.handler")
        empty = servers.gateway_memory(kappa).resident  # with all that the control plane loads for its first request
        begun = time.monotonic()
        names = [f"defined-{index}" for index in range(count)]
        # Ten different archives: one and the same would be stored and unpacked once, a thousand is what nobody has.
        for first in range(0, count, 100):
            part = names[first : first + 100]
            code = zip_of({"app.py": warm.SOURCE, "part.txt": str(first)})
            cold.create_many(kappa, part, code, Runtime=RUNTIME, Handler="app.handler")
        report.add(title, "created and Active, 8 at a time, through boto3", count / (time.monotonic() - begun), "/s")
        grown = servers.gateway_memory(kappa).resident - empty
        report.add(title, "growth of the gateway per function while creating", grown / count / 1024, "KB")
    begun = time.monotonic()
    with kappa_dev(data) as kappa:
        report.add(title, "restart: from the command to the first answer", time.monotonic() - begun, "s", at_most=1.5)
        kappa.client().list_functions()  # as above: the control plane is loaded
        restarted = servers.gateway_memory(kappa).resident
        per_function = (restarted - empty) / count / 1024
        report.add(title, "idle function in the gateway after the restart", max(per_function, 0.0), "KB", at_most=10.0)
        report.add(title, "memory of the gateway", restarted / _MB, "MB")
        connection = BlockingConnection(warm.address_of(kappa))
        begun = time.monotonic()
        answer = connection.invoke(names[count // 2], warm.EVENT.encode())
        took = (time.monotonic() - begun) * 1000
        connection.close()
        report.add(title, "first invocation after the restart", took if answer.status == 200 else None, "ms", why_not=str(answer))
