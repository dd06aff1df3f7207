"""Function logs of a gateway in a cluster: one JSON object per line, and a bounded memory of them."""

from __future__ import annotations

import asyncio
import io
import json

from kappa_core.link.frames import LogLine
from kappa_core.memory import MemoryLogStore
from kappa_core.ports.logs import LogEvent, LogGroup, LogQuery
from kappa_core.resources import AccountId, Region
from kappa_gateway.observe.function_logs import FunctionLogs
from made_specs import version_spec

GROUP = LogGroup(AccountId("000000000000"), Region("us-east-1"), "/aws/lambda/hello")
OTHER = LogGroup(GROUP.account, GROUP.region, "/aws/lambda/other")
SPEC = version_spec("hello", revision="uid.$LATEST.abc")


def test_each_line_is_one_json_object_whatever_the_function_prints() -> None:
    stream = io.StringIO()
    lines = [LogLine(1, 1_700_000_000_123, "r-1", 'two\nlines and "quotes"\n'), LogLine(2, 1_700_000_000_000, "", "{}\n")]
    FunctionLogs(stream).write(SPEC, lines, {1: "2023/11/14/[$LATEST]0"})
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first == {
        "time": "2023-11-14T22:13:20.123Z",
        "account": "000000000000",
        "region": "us-east-1",
        "function": "hello",
        "version": "$LATEST",
        "log_group": "/aws/lambda/hello",
        "log_stream": "2023/11/14/[$LATEST]0",
        "request_id": "r-1",
        "message": 'two\nlines and "quotes"',
    }
    assert (second["message"], second["log_stream"]) == ("{}", "")


def test_the_memory_of_lines_is_bounded_and_the_oldest_go_first() -> None:
    async def scenario() -> None:
        logs = MemoryLogStore(clock_ms=lambda: 0, events_per_group=3, total_bytes=4 * (512 + 10))
        for number in range(4):
            logs.append(GROUP, [LogEvent(number, f"hello {number:03d}\n", "s")])
        assert [event.timestamp_ms for event in await logs.read(LogQuery(GROUP))] == [1, 2, 3]
        for number in range(4, 7):
            logs.append(OTHER, [LogEvent(number, f"other {number:03d}\n", "s")])
        assert [event.timestamp_ms for event in await logs.read(LogQuery(GROUP))] == [3]
        assert [event.timestamp_ms for event in await logs.read(LogQuery(OTHER))] == [4, 5, 6]
        await logs.delete_group(OTHER)
        for number in range(7, 10):
            logs.append(GROUP, [LogEvent(number, f"hello {number:03d}\n", "s")])
        assert [event.timestamp_ms for event in await logs.read(LogQuery(GROUP))] == [7, 8, 9]
        logs.append(OTHER, [LogEvent(10, "x" * 10_000, "s")])
        assert await logs.groups(GROUP.account, GROUP.region) == []  # a line beyond all bounds is not kept either
        await logs.close()

    asyncio.run(scenario())
