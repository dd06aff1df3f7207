"""Kappa's Node.js bootstrap beside AWS's own clients on the same handlers: results, error JSON and log lines are equal.

Version 3 of aws-lambda-ric is compared as nodejs20.x, version 4 as nodejs24.x. Only what differs by nature is left out: paths and
lines of the clients' own files, times.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from node_function import NodeFunction, node_function
from official_clients import node_client

HANDLERS = """
const handlers = {
  echo: async (event) => event,
  nothing: async () => {},
  date: async () => ({ d: new Date(0), u: undefined, f: () => 1, n: NaN, m: new Map([[1, 2]]) }),
  text: async () => '\\u00fc \\u2028 \\u{1f600} </script>',
  bigint: async () => 1n,
  circle: async () => { const a = {}; a.a = a; return a; },
  fails: async () => { throw new TypeError('on purpose \\u00fc'); },
  failsAtOnce: () => { throw new RangeError('at once'); },
  failsLater: async () => { await new Promise(setImmediate); throw new Error('two\\nlines'); },
  failsWithDel: async () => { throw new Error('a\\x7fb'); },
  failsWithText: async () => { throw 'text'; },
  failsWithNumber: async () => { throw 7; },
  failsWithObject: async () => { throw { code: 7 }; },
  failsWithCode: async () => { throw Object.assign(new Error('coded'), { code: 'E_CODE', extra: { a: 1 } }); },
  failsWithCause: async () => { throw new Error('outer', { cause: new Error('inner') }); },
  failsNamed: async () => { class Custom extends Error { constructor(m) { super(m); this.name = 'Named'; } } throw new Custom('own'); },
  failsWithoutStack: async () => { const e = new Error('bare'); delete e.stack; e.stack = undefined; throw e; },
  contextKeys: async (event, context) => Object.keys(context),
  remaining: async (event, context) => typeof context.getRemainingTimeInMillis(),
  trace: async () => process.env._X_AMZN_TRACE_ID,
  logs: async () => {
    console.log('plain'); console.info('%s=%d %j', 'a', 1, {b: 2}, [3]); console.warn({deep: {er: {est: {x: 1}}}});
    console.error(new Error('logged').message, 7n, Symbol('s')); console.debug('debug'); console.trace('trace'); console.log();
    console.log('two\\nlines'); console.table([{a: 1}]); console.log(undefined); console.log('%c styled', 'color: red');
  },
};
exports.handler = (event, context) => handlers[event.name](event, context);
"""
CALLBACK_HANDLERS = """
const handlers = {
  calls: (e, c, cb) => cb(null, 1),
  callsTwice: (e, c, cb) => { cb(null, 1); cb(null, 2); },
  callsWithText: (e, c, cb) => cb('text'),
  callsWithFalse: (e, c, cb) => cb(false),
  callsWithNumber: (e, c, cb) => cb(7),
  callsWithError: (e, c, cb) => cb(new TypeError('given')),
  never: () => 5,
  waits: (e, c, cb) => { const r = []; setTimeout(() => r.push(1), 20); cb(null, r); },
  doesNotWait: (e, c, cb) => { c.callbackWaitsForEmptyEventLoop = false; const r = []; setTimeout(() => r.push(1), 20); cb(null, r); },
  done: (e, c) => c.done(null, 1),
  doneWithError: (e, c) => c.done(new Error('given')),
  fails: (e, c) => c.fail(),
  failsWithText: (e, c) => c.fail('text'),
  succeeds: (e, c) => c.succeed(undefined),
  unsettled: () => new Promise(() => {}),
  thenable: () => ({ then: (f) => f(3) }),
  bigint: (e, c, cb) => cb(null, 1n),
};
exports.handler = (event, context, callback) => handlers[event.name](event, context, callback);
"""
_NAME = re.compile(r"^  (\w+):", re.MULTILINE)


def start(folder: Path, client: Path | None, files: dict[str, str], handler: str, *, runtime: str, **more: Any) -> Any:
    """The function on AWS's client, or on Kappa's where that is None."""
    home = folder / ("kappa" if client is None else "official")
    home.mkdir()
    command = None if client is None else [str(client), handler]
    return node_function(home, files, handler, runtime=runtime, command=command, **more)


def program(folder: Path, major: int) -> Path:
    """The entry of AWS's client."""
    package = node_client(folder, major=major) / "node_modules" / "aws-lambda-ric"
    return package / "bin" / "index.mjs" if major == 3 else package / "index.mjs"


def told(function: NodeFunction, name: str) -> Any:
    """What the caller gets, without what only the client's own frames can say."""
    sent = function.invoke({"name": name})
    body = sent.json
    if isinstance(body, dict) and "trace" in body:
        body = [*list(body.items())[:-1], ("trace", own_frames(body["trace"]))]
    return sent.kind, body


def own_frames(trace: list[str]) -> list[str]:
    """The head of a stack and its frames in the function's file; folders differ."""
    return [re.sub(r"/\S*/task/", "/task/", line) for line in trace if not line.startswith("    at ") or "/task/" in line]


def log_lines(function: NodeFunction) -> list[str]:
    """Log lines without times, request ids and the client's own frames."""
    lines = [line.partition("\t")[2] for line in function.output().split("\n") if "Executing 'index.handler'" not in line]
    lines = [re.sub(r"/[^\s\"]*/task/", "/task/", line) for line in lines]
    # In JSON a frame is an element: "    at f (file:1:2)".
    return [re.sub(r',?"    at (?!\S* ?\(?/task/)[^"]*"', "", line) for line in lines]


@pytest.mark.node
@pytest.mark.parametrize(("major", "runtime"), [(3, "nodejs20.x"), (4, "nodejs24.x")])
def test_the_same_results_and_errors(tmp_path: Path, major: int, runtime: str) -> None:
    # Version 3 gives up on an error without a stack; Kappa tells its type and message for every version, as version 4 does.
    left_out = {"logs", "failsWithoutStack"} if major == 3 else {"logs"}
    names = [name for name in _NAME.findall(HANDLERS) if name not in left_out]
    outcomes = []
    for client in (program(tmp_path, major), None):
        with start(tmp_path, client, {"index.js": HANDLERS}, "index.handler", runtime=runtime) as function:
            outcomes.append({name: told(function, name) for name in names})
    assert outcomes[1] == outcomes[0]


@pytest.mark.node
def test_the_same_answers_of_callbacks(tmp_path: Path) -> None:
    outcomes = []
    for client in (program(tmp_path, 3), None):
        with start(tmp_path, client, {"index.js": CALLBACK_HANDLERS}, "index.handler", runtime="nodejs20.x") as function:
            outcomes.append({name: told(function, name) for name in _NAME.findall(CALLBACK_HANDLERS)})
    assert outcomes[1] == outcomes[0]


@pytest.mark.node
@pytest.mark.parametrize("log_format", ["Text", "JSON"])
@pytest.mark.parametrize(("major", "runtime"), [(3, "nodejs20.x"), (4, "nodejs24.x")])
def test_the_same_log_lines(tmp_path: Path, major: int, runtime: str, log_format: str) -> None:
    outcomes = []
    for client in (program(tmp_path, major), None):
        variables = {"AWS_LAMBDA_LOG_FORMAT": log_format}
        with start(tmp_path, client, {"index.js": HANDLERS}, "index.handler", runtime=runtime, variables=variables) as function:
            for name in ("logs", "fails", "failsWithCode", "failsWithText"):
                function.invoke({"name": name})
            lines = log_lines(function)
            if log_format == "JSON":
                lines = [
                    re.sub(r'"timestamp":"[^"]*"', "", line) for line in function.output().split("\n") if line.startswith("{")
                ]
                lines = [re.sub(r',?"    at [^"]*"', "", line) for line in lines]
            outcomes.append(lines)
    assert len(outcomes[0]) > 10
    assert outcomes[1] == outcomes[0]


BROKEN = {
    "no-file": ({}, "gone.handler"),
    "no-package": ({"index.js": "require('left-pad')"}, "index.handler"),
    "no-export": ({"index.js": ""}, "index.handler"),
    "no-function": ({"index.js": "exports.handler = {}"}, "index.handler"),
    "syntax": ({"index.js": "const a = ;"}, "index.handler"),
    "throws": ({"index.js": "throw new TypeError('at once')"}, "index.handler"),
    "no-dot": ({"index.js": ""}, "index"),
    "dots": ({"index.js": ""}, "../task/index.handler"),
    "esm-no-package": ({"index.mjs": "import 'left-pad'"}, "index.handler"),
    "esm-rejects": ({"index.mjs": "await Promise.reject(new RangeError('far'))"}, "index.handler"),
}


@pytest.mark.node
@pytest.mark.parametrize(("major", "runtime"), [(3, "nodejs20.x"), (4, "nodejs24.x")])
@pytest.mark.parametrize("files_and_handler", BROKEN.values(), ids=BROKEN.keys())
def test_the_same_init_errors(tmp_path: Path, major: int, runtime: str, files_and_handler: tuple[dict[str, str], str]) -> None:
    files, handler = files_and_handler
    outcomes = []
    for client in (program(tmp_path, major), None):
        with start(tmp_path, client, files, handler, runtime=runtime) as function:
            sent = function.posted()
            body = re.sub(r"(?<=- )/[^\\\"]*index\.mjs", "/var/runtime/index.mjs", sent.body.decode())
            body = re.sub(r"/[^\\\"\s]*/task/", "/task/", body)
            # Version 4 imports what Kappa requires, so the client itself is missing from its "Require stack".
            body = body.replace(r"/task/index.js\n- /var/runtime/index.mjs", "/task/index.js")
            error = json.loads(body)
            status = function.exit_status()
        outcomes.append((sent.kind, list(error), error["errorType"], error["errorMessage"], error["trace"][:1], status))
        assert sent.headers["lambda-runtime-function-error-type"] == error["errorType"]
    if "SyntaxError" in outcomes[0][3] and major == 3:
        # Version 3 hides where the error is; Kappa names file and line for every version, as version 4 does.
        assert [outcome[:4] for outcome in outcomes] == [outcomes[0][:4]] * 2
        assert outcomes[1][4] == ["/task/index.js:1"]
        return
    assert outcomes[1] == outcomes[0]
