"""Kappa's Python bootstrap beside AWS's own client, awslambdaric, on the same handlers: results, error JSON and log lines are equal."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from supervised import supervised

pytestmark = pytest.mark.skipif(importlib.util.find_spec("awslambdaric") is None, reason="awslambdaric is not installed")

HANDLERS = """
import collections, datetime, decimal, enum, json, logging, sys
Point = collections.namedtuple("Point", "x y")

class Colour(enum.IntEnum):
    RED = 1

class Described:
    def _asdict(self):
        return {"a": 1}

class Text(str):
    pass

class CustomError(Exception):
    def __str__(self):
        return "custom \\u00fc"

def echo(event, context): return event
def none(event, context): pass
def raw(event, context): return b"\\x00\\xff"
def text(event, context): return "\\u00fc \\u2028 \\U0001f600 </script> \\x7f \\"\\\\"
def named(event, context): return {"p": Point(1, Point(2, [])), "l": [Point(3, 4)]}
def keys(event, context): return {1: 1, 1.5: 2, True: 3, None: 4, b"k": b"v", Colour.RED: Text("t")}
def decimals(event, context):
    return [decimal.Decimal("1.10"), decimal.Decimal("NaN"), decimal.Decimal("Infinity"), {"d": decimal.Decimal("1E+2")}]
def floats(event, context): return [float("nan"), float("inf"), 1e100, 10**40, -0.0]
def described(event, context): return Described()
def ordered(event, context): return collections.OrderedDict(b=1, a=collections.defaultdict(int, c=2))
def tuples(event, context): return (1, (2, 3))
def a_set(event, context): return {1, 2}
def a_date(event, context): return {"at": datetime.datetime(2020, 1, 1)}
def a_tuple_key(event, context): return {(1, 2): 3}
def a_decimal_key(event, context): return {decimal.Decimal(1): 3}
def bad_bytes(event, context): return {"b": b"\\xff"}
def circle(event, context):
    found = []
    found.append(found)
    return found
def deep(event, context):
    found = []
    for _ in range(100000): found = [found]
    return found
def function(event, context): return echo
def fails(event, context): raise ValueError("it is \\u00fc")
def fails_custom(event, context): raise CustomError
def fails_empty(event, context): raise KeyError
def fails_deeper(event, context):
    def inner():
        json.loads("{")
    inner()
def fails_chained(event, context):
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise RuntimeError("lines\\n  of\\n\\ntext") from error
def fails_with_lambda(event, context): return (lambda: [][1])()
def logs(event, context):
    logging.getLogger().setLevel("DEBUG")
    print("printed")
    logging.debug("debug %s", 1)
    logging.getLogger("a.b").warning("two\\nlines")
    print("to stderr", file=sys.stderr)
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("oh")
    logging.getLogger().error("extra", extra={"answer": 42})
def about(event, context):
    return {
        "repr": repr(context), "left": 0 < context.get_remaining_time_in_millis() <= 10000, "w3c": context.w3c(),
        "client": repr(context.client_context), "custom": context.client_context and context.client_context.custom,
        "title": context.client_context and context.client_context.client and context.client_context.client.app_title,
        "identity": repr(context.identity), "names": sorted(name for name in dir(context) if name[0] != "_"),
        "types": [type(context).__name__, type(context.memory_limit_in_mb).__name__],
    }
"""
NAMES = re.findall(r"^def (\w+)", HANDLERS, re.MULTILINE)
# One environment per client serves all of them.
HANDLERS += "def dispatch(event, context): return globals()[event['call']](event, context)\n"

CLIENT_CONTEXT = json.dumps(
    {
        "custom": {"k": "v"},
        "env": {"e": "f"},
        "client": {"app_title": "t"},
        "w3c": {"traceparent": "00-a", "other": "x", "baggage": 1},
    }
)


@pytest.fixture(scope="module")
def client_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with awslambdaric and what it needs, and nothing else of the developer's environment."""
    folder = tmp_path_factory.mktemp("client")
    for name in ("awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (folder / source.name).symlink_to(source)
    return folder


def timeless(log: str) -> str:
    """Without what differs from run to run."""
    log = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", "<time>", log)
    log = re.sub(r"\[\$LATEST\][0-9a-f]{32}", "<stream>", log)
    log = re.sub(r"Unhandled exception\. The most likely.*?\r", "<warning>\r", log)
    return re.sub(r'((INIT_START|INIT_REPORT|REPORT)|.*"type":"platform).*\n', "", log)


async def run(folder: Path, handler: str, invocations: list[dict[str, Any]], **spec: Any) -> list[tuple[Any, ...]]:
    seen: list[tuple[Any, ...]] = []
    folder.mkdir(exist_ok=True)
    files = {
        "index.py": HANDLERS,
        "broken.py": "def (:\n",
        "raises.py": "import nothing_here.at_all",
        "value.py": "import json\ndef f(): json.loads('')\nf()",
    }
    async with supervised(folder, files, handler=handler, **spec) as function:
        for invocation in invocations:
            result, payload = await function.invoke(**invocation)
            text = timeless(payload.decode("latin-1").replace(function.task_root.as_posix(), "<task>"))
            seen.append((result.function_error, result.content_type, text))
        seen.append((timeless(function.log.replace(function.task_root.as_posix(), "<task>")),))
    return seen


def both(tmp_path: Path, client_folder: Path, handler: str, invocations: list[dict[str, Any]], **spec: Any) -> None:
    async def scenario() -> None:
        own = await run(tmp_path / "own", handler, invocations, **spec)
        official = await run(
            tmp_path / "official",
            handler,
            invocations,
            client="official",
            platform_variables={"KAPPA_CLIENT_PYTHON": str(client_folder)},
            **spec,
        )
        for ours, theirs in zip(own, official, strict=True):
            assert ours == theirs

    asyncio.run(scenario())


def test_handlers_look_the_same_to_their_callers_and_in_their_logs(tmp_path: Path, client_folder: Path) -> None:
    more = {"client_context": CLIENT_CONTEXT, "tenant_id": "t", "cognito_identity": '{"cognitoIdentityId": "i"}'}
    invocations = [{"event": {"call": name, "k": [1, "\u00fc"]}} | extra for name in NAMES for extra in ({}, more)]
    both(tmp_path, client_folder, "index.dispatch", invocations)


def test_runtimes_from_python_3_12_on_write_json_in_utf_8(tmp_path: Path, client_folder: Path) -> None:
    invocations = [{"event": {"call": name}} for name in ("text", "decimals", "fails", "keys")]
    both(tmp_path, client_folder, "index.dispatch", invocations, runtime="python3.12")


def test_json_logs_are_the_same_lines(tmp_path: Path, client_folder: Path) -> None:
    invocations = [{"event": {"call": name}, "tenant_id": "t"} for name in ("logs", "fails", "fails_deeper")]
    both(tmp_path, client_folder, "index.dispatch", invocations, log_format="JSON", application_log_level="DEBUG")


@pytest.mark.parametrize(
    "handler",
    ["index.missing", "nowhere.handler", "broken.handler", "raises.handler", "value.handler", "sys.exit", "nodots", "a/b.c", ""],
)
def test_an_init_that_fails_looks_the_same(tmp_path: Path, client_folder: Path, handler: str) -> None:
    both(tmp_path, client_folder, handler, [{"event": 1}])


@pytest.mark.parametrize(
    "invocation",
    [
        pytest.param({"event": 1, "client_context": "{"}, id="client-context"),
        pytest.param({"event": 1, "cognito_identity": "nonsense"}, id="cognito-identity"),
        pytest.param({"raw": b"{"}, id="event"),
    ],
)
def test_what_cannot_be_parsed_is_the_same_fault(tmp_path: Path, client_folder: Path, invocation: dict[str, Any]) -> None:
    async def scenario() -> None:
        spec: dict[str, Any] = {"platform_variables": {"KAPPA_CLIENT_PYTHON": str(client_folder)}}
        own = json.loads((await run(tmp_path / "own", "index.echo", [invocation]))[0][2])
        official = json.loads((await run(tmp_path / "official", "index.echo", [invocation], client="official", **spec))[0][2])
        # The words after the colon are the JSON parser's, and simplejson's are not those of the standard library.
        for found in (own, official):
            found["errorMessage"] = found["errorMessage"].partition(": ")[0]
        assert own == official

    asyncio.run(scenario())
