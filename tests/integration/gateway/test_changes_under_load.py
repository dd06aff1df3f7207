"""Changes while a function is being invoked: none fails an invocation, and one that begins after the answer to a change sees it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import botocore.exceptions
import pytest

from kappa_dev import ROLE, RUNTIME, KappaDev, zip_of

CALLERS = 4


class Answer(NamedTuple):
    began: float
    ended: float
    result: Any
    """What the function returned, or the code of the error."""


def code(number: int) -> bytes:
    return zip_of({"app.py": f"def handler(event, context):\n    return {number}\n"})


def create(client: Any, name: str, number: int, **more: Any) -> None:
    given = {"Runtime": RUNTIME, "Handler": "app.handler", "Role": ROLE, "Timeout": 10, **more}
    client.create_function(FunctionName=name, Code={"ZipFile": code(number)}, **given)


def invoke(client: Any, name: str, **more: Any) -> Any:
    try:
        answer = client.invoke(FunctionName=name, **more)
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]
    result = json.loads(answer["Payload"].read())
    return result if "FunctionError" not in answer else f"function error: {result}"


@contextmanager
def load(kappa: KappaDev, call: Callable[[Any], Any]) -> Iterator[list[Answer]]:
    """CALLERS threads that invoke without a pause during the block; complete when it ends."""
    answers: list[Answer] = []
    enough = threading.Event()
    client = kappa.client()

    def calling() -> None:
        while not enough.is_set():
            began = time.monotonic()
            result = call(client)
            answers.append(Answer(began, time.monotonic(), result))

    callers = [threading.Thread(target=calling) for _ in range(CALLERS)]
    for each in callers:
        each.start()
    try:
        yield answers
    finally:
        enough.set()
        for each in callers:
            each.join()


def test_code_updates_fail_no_invocation_and_are_seen_after_the_waiter(kappa: KappaDev) -> None:
    client = kappa.client()
    create(client, "updated", 0)
    assert invoke(client, "updated") == 0
    seen_from: dict[int, float] = {}
    with load(kappa, lambda caller: invoke(caller, "updated")) as answers:
        for number in range(1, 7):
            client.update_function_code(FunctionName="updated", ZipFile=code(number))
            waiter = client.get_waiter("function_updated_v2")
            waiter.wait(FunctionName="updated", WaiterConfig={"Delay": 0, "MaxAttempts": 10_000})
            seen_from[number] = time.monotonic()
            assert invoke(client, "updated") == number
    assert [each for each in answers if not isinstance(each.result, int)] == []
    assert [each for number, since in seen_from.items() for each in answers if each.began > since and each.result < number] == []


def test_a_moved_alias_leads_to_its_version_at_once(kappa: KappaDev) -> None:
    client = kappa.client()
    create(client, "aliased", 1, Publish=True)
    client.update_function_code(FunctionName="aliased", ZipFile=code(2), Publish=True)
    client.create_alias(FunctionName="aliased", Name="live", FunctionVersion="1")
    assert [invoke(client, "aliased", Qualifier=version) for version in ("1", "2", "live")] == [1, 2, 1]
    with load(kappa, lambda caller: invoke(caller, "aliased", Qualifier="live")) as answers:
        for move in range(40):
            version = 2 - move % 2
            client.update_alias(FunctionName="aliased", Name="live", FunctionVersion=str(version))
            assert invoke(client, "aliased", Qualifier="live") == version
    assert {each.result for each in answers} <= {1, 2}


def test_a_function_that_was_deleted_never_answers_again(kappa: KappaDev) -> None:
    client = kappa.client()
    create(client, "recreated", 0)
    deleted_at: dict[int, float] = {}
    with load(kappa, lambda caller: invoke(caller, "recreated")) as answers:
        for number in range(1, 8):
            client.delete_function(FunctionName="recreated")
            deleted_at[number] = time.monotonic()
            assert invoke(client, "recreated") == "ResourceNotFoundException"
            create(client, "recreated", number)
            assert invoke(client, "recreated") == number
    assert {each.result for each in answers if not isinstance(each.result, int)} <= {"ResourceNotFoundException"}
    late = [
        each
        for number, since in deleted_at.items()
        for each in answers
        if each.began > since and isinstance(each.result, int) and each.result < number
    ]
    assert late == []


@pytest.mark.parametrize("attempt", range(5))
def test_reserved_concurrency_of_zero_holds_from_its_answer_on(kappa: KappaDev, attempt: int) -> None:
    client = kappa.client()
    name = f"stopped{attempt}"
    create(client, name, attempt)
    assert invoke(client, name) == attempt
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert invoke(client, name) == "TooManyRequestsException"
    client.delete_function_concurrency(FunctionName=name)
    assert invoke(client, name) == attempt


def test_a_deleted_version_is_gone_for_invokers_at_once(kappa: KappaDev) -> None:
    client = kappa.client()
    create(client, "versioned", 0)
    for number in range(1, 6):
        client.update_function_code(FunctionName="versioned", ZipFile=code(number))
        version = client.publish_version(FunctionName="versioned")["Version"]
        assert invoke(client, "versioned", Qualifier=version) == number
        client.delete_function(FunctionName="versioned", Qualifier=version)
        assert invoke(client, "versioned", Qualifier=version) == "ResourceNotFoundException"
