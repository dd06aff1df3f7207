"""Invocations without pause from several threads, while something happens to the cluster; what each of them came to is kept.

A client sends one request at a time and never repeats it: what a user's own retries would hide is counted here.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError


class Outcome(NamedTuple):
    """One invocation. `error` is empty for an answer of the function, else AWS's error or the class of a broken connection."""

    began: float
    seconds: float
    error: str
    answer: Any


class Load:
    """See the module; use `load`."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._lock = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        with self._lock:
            self.outcomes.append(outcome)

    @property
    def answers(self) -> list[Any]:
        return [each.answer for each in self.outcomes if not each.error]

    @property
    def errors(self) -> Counter[str]:
        """How often each error came."""
        return Counter(each.error for each in self.outcomes if each.error)

    @property
    def slowest(self) -> float:
        """Seconds of the slowest invocation."""
        return max((each.seconds for each in self.outcomes), default=0.0)

    @property
    def longest_silence(self) -> float:
        """The longest time in seconds in which no invocation was answered."""
        ends = sorted(each.began + each.seconds for each in self.outcomes if not each.error)
        return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)

    def describe(self) -> str:
        """One line with the numbers."""
        said = ", ".join(f"{count} × {error}" for error, count in self.errors.most_common()) or "none"
        return (
            f"{len(self.outcomes)} invocations, failed: {said}; slowest {self.slowest:.2f} s, "
            f"longest without an answer {self.longest_silence:.2f} s"
        )

    def wait_for(self, answers: int, *, seconds: float = 60.0) -> None:
        """Until so many invocations were answered from now on. Raises AssertionError."""
        wanted = len(self.answers) + answers
        deadline = time.monotonic() + seconds
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline, f"no {answers} answers within {seconds} s: {self.describe()}"
            time.sleep(0.05)


def invoke(client: Any, function: str, event: Any) -> Any:
    """What the function answers, which must not be an error."""
    said = client.invoke(FunctionName=function, Payload=json.dumps(event))
    answer = json.load(said["Payload"])
    assert "FunctionError" not in said, answer
    return answer


@contextmanager
def load(make_client: Callable[[], Any], function: str, *, threads: int = 4, payload: Any = None) -> Iterator[Load]:
    """Invoke `function` from `threads` clients until the block ends. Each thread has a client of its own."""
    running = Load()
    stop = threading.Event()
    body = json.dumps(payload or {}).encode()

    def work(client: Any) -> None:
        while not stop.is_set():
            began = time.monotonic()
            error, answer = "", None
            try:
                said = client.invoke(FunctionName=function, Payload=body)
                answer = json.loads(said["Payload"].read())
                error = f"function error: {answer}" if "FunctionError" in said else ""
            except ClientError as failed:
                error = f"{failed.response['Error']['Code']}: {failed.response['Error']['Message']}"
            except BotoCoreError as failed:
                error = type(failed).__name__
            running.add(Outcome(began, time.monotonic() - began, error, answer))
            if error:
                time.sleep(0.05)

    workers = [threading.Thread(target=work, args=(make_client(),), daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield running
    finally:
        stop.set()
        for worker in workers:
            worker.join(timeout=150)
        assert not any(worker.is_alive() for worker in workers), "an invocation hangs"
