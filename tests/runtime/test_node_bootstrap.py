"""The Node.js bootstrap on a stand-in Runtime API: handlers of every form, their context, results and failures."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from node_function import BOOTSTRAP, node, node_function
from queued_runtime_api import ARN, QueuedRuntimeApi

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("_has_node")]


@pytest.fixture
def _has_node() -> None:
    node()


@pytest.mark.parametrize(
    ("files", "handler"),
    [
        pytest.param({"index.js": "exports.handler = async (e) => e.x + 1"}, "index.handler", id="commonjs"),
        pytest.param({"index.mjs": "export const handler = async (e) => e.x + 1"}, "index.handler", id="mjs"),
        pytest.param({"index.cjs": "exports.handler = async (e) => e.x + 1"}, "index.handler", id="cjs"),
        pytest.param(
            {"index.js": "export const handler = async (e) => e.x + 1", "package.json": '{"type":"module"}'},
            "index.handler",
            id="type-module",
        ),
        pytest.param(
            {"src/index.js": "export const handler = async (e) => e.x + 1", "package.json": '{"type":"module"}'},
            "src/index.handler",
            id="type-module-of-a-parent-folder",
        ),
        pytest.param({"src/deep/app.js": "exports.run = async (e) => e.x + 1"}, "src/deep/app.run", id="folder"),
        pytest.param({"app/index.js": "exports.run = async (e) => e.x + 1"}, "app.run", id="folder-with-index"),
        pytest.param({"index.js": "exports.api = {v1: {get: async (e) => e.x + 1}}"}, "index.api.v1.get", id="nested-property"),
        pytest.param({"index.mjs": "export default {handler: async (e) => e.x + 1}"}, "index.handler", id="default-export"),
        pytest.param(
            {"node_modules/dep/main.js": "exports.run = async (e) => e.x + 1"}, "node_modules/dep/main.run", id="package-file"
        ),
        pytest.param(
            {"node_modules/dep/index.js": "exports.run = async (e) => e.x + 1"}, "dep.run", id="package-by-node-resolution"
        ),
        pytest.param(
            {"index.mjs": "const n = await Promise.resolve(1); export const handler = async (e) => e.x + n"},
            "index.handler",
            id="top-level-await",
        ),
        pytest.param({"index.js": "exports.handler = (e, c, cb) => { cb(null, e.x + 1) }"}, "index.handler", id="callback"),
        pytest.param({"index.js": "exports.handler = (e, c) => c.done(null, e.x + 1)"}, "index.handler", id="context-done"),
        pytest.param({"index.js": "exports.handler = (e, c) => c.succeed(e.x + 1)"}, "index.handler", id="context-succeed"),
        pytest.param({"index.js": "exports.handler = (e) => ({then: (f) => f(e.x + 1)})"}, "index.handler", id="thenable"),
    ],
)
def test_a_handler_of_this_form_answers_event_after_event(tmp_path: Path, files: dict[str, str], handler: str) -> None:
    with node_function(tmp_path, files, handler) as function:
        assert [function.returned({"x": x}) for x in (1, 2, 3)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("result", "body"),
    [
        pytest.param("undefined", b"null", id="undefined"),
        pytest.param("null", b"null", id="null"),
        pytest.param("'\\u00fc\\u2028'", '"ü\u2028"'.encode(), id="unicode"),
        pytest.param("({a: undefined, d: new Date(0)})", b'{"d":"1970-01-01T00:00:00.000Z"}', id="json-rules"),
        pytest.param("(() => 1)", b"null", id="function"),
    ],
)
def test_a_result_is_what_json_makes_of_it(tmp_path: Path, result: str, body: bytes) -> None:
    with node_function(tmp_path, {"index.js": f"exports.handler = async () => {result}"}, "index.handler") as function:
        sent = function.invoke()
        assert (sent.kind, sent.body) == ("response", body)
        assert sent.headers["content-type"] == "application/json"


@pytest.mark.parametrize("result", ["10n", "(() => { const a = {}; a.a = a; return a })()"], ids=["bigint", "circular"])
@pytest.mark.parametrize(("runtime", "name"), [("nodejs20.x", "Error"), ("nodejs24.x", "Runtime.JSONStringifyError")])
def test_a_result_that_json_cannot_hold_is_an_error_of_the_function(tmp_path: Path, result: str, runtime: str, name: str) -> None:
    files = {"index.js": f"exports.handler = async (e) => e ? 'fine' : {result}"}
    with node_function(tmp_path, files, "index.handler", runtime=runtime) as function:
        sent = function.invoke()
        assert sent.kind == "error"
        assert (sent.json["errorType"], sent.json["errorMessage"]) == (name, "Unable to stringify response body")
        assert function.returned(1) == "fine"


def test_the_context_tells_what_lambda_tells(tmp_path: Path) -> None:
    script = (
        "exports.handler = async (event, c) => ({...c, left: c.getRemainingTimeInMillis(), trace: process.env._X_AMZN_TRACE_ID})"
    )
    with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
        sent = function.invoke(
            headers={
                "Lambda-Runtime-Client-Context": json.dumps({"custom": {"k": "ü"}}, ensure_ascii=False),
                "Lambda-Runtime-Cognito-Identity": '{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}',
                "Lambda-Runtime-Aws-Tenant-Id": "blue",
                "Lambda-Runtime-Trace-Id": "Root=1-2-3;Sampled=1",
            }
        )
        context = sent.json
        assert 0 < context.pop("left") <= 3000
        assert context == {
            "callbackWaitsForEmptyEventLoop": True,
            "functionVersion": "$LATEST",
            "functionName": "tried",
            "memoryLimitInMB": "128",
            "logGroupName": "/aws/lambda/tried",
            "logStreamName": "2026/01/02/[$LATEST]0123456789abcdef0123456789abcdef",
            "clientContext": {"custom": {"k": "ü"}},
            "identity": {"cognitoIdentityId": "i", "cognitoIdentityPoolId": "p"},
            "invokedFunctionArn": ARN,
            "awsRequestId": sent.request_id,
            "tenantId": "blue",
            "trace": "Root=1-2-3;Sampled=1",
        }
        plain = function.returned()
        assert plain.keys().isdisjoint({"clientContext", "identity", "tenantId"})
        assert plain["trace"].startswith("Root=1-5e1b4151")


def test_nodejs24_has_neither_callbacks_nor_what_belongs_to_them(tmp_path: Path) -> None:
    files = {
        "index.js": "exports.handler = (e, c) => [Object.keys(c).sort(), c.xRayTraceId !== undefined]",
        "old.js": "exports.handler = (e, c, callback) => callback()",
    }
    with node_function(tmp_path, files, "index.handler", runtime="nodejs24.x") as function:
        keys, traced = function.returned()
        assert traced
        assert {"done", "succeed", "fail", "callbackWaitsForEmptyEventLoop"}.isdisjoint(keys)
    with node_function(tmp_path, files, "old.handler", runtime="nodejs24.x") as function:
        sent = function.posted()
        assert sent.kind == "init/error"
        assert sent.json["errorType"] == "Runtime.CallbackHandlerDeprecated"
        assert function.exit_status() == 1


class TestCallbacks:
    def test_the_answer_waits_until_the_event_loop_is_empty(self, tmp_path: Path) -> None:
        script = "exports.handler = (e, c, cb) => { const r = []; setTimeout(() => r.push('late'), 30); cb(null, r) }"
        with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
            assert [function.returned(), function.returned()] == [["late"], ["late"]]

    def test_unless_the_handler_says_otherwise(self, tmp_path: Path) -> None:
        script = """exports.handler = (e, c, cb) => {
            c.callbackWaitsForEmptyEventLoop = false; const r = []; setInterval(() => r.push('late'), 60_000); cb(null, r) }"""
        with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
            assert [function.returned(), function.returned()] == [[], []]

    def test_a_handler_that_never_calls_back_answers_null(self, tmp_path: Path) -> None:
        script = "exports.handler = (e) => { setTimeout(() => {}, 10); return 'ignored' }"
        with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
            assert [function.returned(), function.returned()] == [None, None]

    def test_a_promise_that_never_settles_answers_null(self, tmp_path: Path) -> None:
        with node_function(tmp_path, {"index.js": "exports.handler = () => new Promise(() => {})"}, "index.handler") as function:
            assert [function.returned(), function.returned()] == [None, None]

    def test_only_the_first_answer_counts(self, tmp_path: Path) -> None:
        script = (
            "exports.handler = (e, c, cb) => { c.done(null, 1); c.fail(new Error('no')); cb(null, 3); return Promise.resolve(4) }"
        )
        with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
            assert [function.returned(), function.returned()] == [1, 1]

    @pytest.mark.parametrize(
        ("call", "kind", "message"),
        [
            pytest.param("cb('text')", "string", "text", id="callback-text"),
            pytest.param("cb(new TypeError('wrong'))", "TypeError", "wrong", id="callback-error"),
            pytest.param("c.fail(new RangeError('far'))", "RangeError", "far", id="context-fail"),
            pytest.param("c.fail()", "string", "handled", id="context-fail-without-a-reason"),
            pytest.param("c.done({code: 7})", "object", "[object Object]", id="done-object"),
            pytest.param("setImmediate(() => cb(new Error('later')))", "Error", "later", id="later"),
        ],
    )
    def test_an_error_is_reported_and_the_process_goes_on(self, tmp_path: Path, call: str, kind: str, message: str) -> None:
        with node_function(tmp_path, {"index.js": f"exports.handler = (e, c, cb) => {{ {call} }}"}, "index.handler") as function:
            for _ in range(2):
                sent = function.invoke()
                assert sent.kind == "error"
                assert (sent.json["errorType"], sent.json["errorMessage"]) == (kind, message)


@pytest.mark.parametrize("wait", ["", "await new Promise((r) => setTimeout(r, 5));"], ids=["at-once", "later"])
def test_a_thrown_error_has_awss_shape(tmp_path: Path, wait: str) -> None:
    script = f"exports.handler = async function handler() {{ {wait} throw new RangeError('too\\x7f far') }}"
    with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
        for _ in range(2):
            sent = function.invoke()
            assert sent.kind == "error"
            assert list(sent.json) == ["errorType", "errorMessage", "trace"]
            assert (sent.json["errorType"], sent.json["errorMessage"]) == ("RangeError", "too%7F far")
            assert sent.json["trace"][0] == "RangeError: too%7F far"
            assert re.search(r"^ {4}at .*index\.js:1:\d+\)$", sent.json["trace"][1])
            assert sent.headers["lambda-runtime-function-error-type"] == "RangeError"


@pytest.mark.parametrize(
    ("files", "handler", "kind", "message"),
    [
        pytest.param(
            {},
            "gone.handler",
            "Runtime.ImportModuleError",
            r"^Error: Cannot find module 'gone'\nRequire stack:\n- /var/runtime/index\.mjs$",
            id="no-such-file",
        ),
        pytest.param(
            {"index.js": "require('left-pad')"},
            "index.handler",
            "Runtime.ImportModuleError",
            r"^Error: Cannot find module 'left-pad'\nRequire stack:\n- .*task/index\.js\n- /var/runtime/index\.mjs$",
            id="no-such-package",
        ),
        pytest.param(
            {"index.mjs": "import 'left-pad'"},
            "index.handler",
            "Error",
            r"^Cannot find package 'left-pad' imported from .*task/index\.mjs",
            id="no-such-package-esm",
        ),
        pytest.param(
            {"index.js": "exports.handler = {"},
            "index.handler",
            "Runtime.UserCodeSyntaxError",
            r"^SyntaxError: Unexpected",
            id="syntax",
        ),
        pytest.param(
            {"index.js": "exports.other = 1"},
            "index.handler",
            "Runtime.HandlerNotFound",
            r"^index\.handler is undefined or not exported$",
            id="not-exported",
        ),
        pytest.param(
            {"index.js": "exports.handler = 1"},
            "index.handler",
            "Runtime.HandlerNotFound",
            r"^index\.handler is not a function$",
            id="no-function",
        ),
        pytest.param({"index.js": ""}, "index", "Runtime.MalformedHandlerName", r"^Bad handler$", id="no-dot"),
        pytest.param(
            {"index.js": ""},
            "../index.handler",
            "Runtime.MalformedHandlerName",
            r"^'\.\./index\.handler' is not a valid handler name\. Use absolute paths when",
            id="dots",
        ),
        pytest.param({"index.js": "throw new TypeError('at once')"}, "index.handler", "TypeError", r"^at once$", id="throws"),
        pytest.param(
            {"index.mjs": "await Promise.reject(new TypeError('at once'))"},
            "index.handler",
            "TypeError",
            r"^at once$",
            id="rejects",
        ),
        pytest.param({"index.js": "throw 'text'"}, "index.handler", "string", r"^text$", id="throws-text"),
    ],
)
def test_a_handler_that_cannot_be_loaded_is_an_init_error(
    tmp_path: Path, files: dict[str, str], handler: str, kind: str, message: str
) -> None:
    with node_function(tmp_path, files, handler) as function:
        sent = function.posted()
        assert sent.kind == "init/error"
        assert list(sent.json) == ["errorType", "errorMessage", "trace"]
        assert sent.json["errorType"] == sent.headers["lambda-runtime-function-error-type"] == kind
        assert re.search(message, sent.json["errorMessage"])
        assert function.exit_status() == 129
        assert "\tundefined\tERROR\tUncaught Exception \t{" in function.output()
        assert function.api.gets == 0


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    with node_function(tmp_path, {"index.js": "const a = 1;\nconst b = ;\n"}, "index.handler") as function:
        assert function.posted().json["trace"][0].endswith("task/index.js:2")


class TestEnds:
    @pytest.mark.parametrize(
        ("code", "kind", "message", "status"),
        [
            pytest.param("setTimeout(() => { throw new TypeError('later') }, 1)", "TypeError", "later", 129, id="exception"),
            pytest.param(
                "Promise.reject(new TypeError('lost'))",
                "Runtime.UnhandledPromiseRejection",
                "TypeError: lost",
                128,
                id="rejection",
            ),
        ],
    )
    def test_an_error_outside_the_handler_is_told_and_ends_the_process(
        self, tmp_path: Path, code: str, kind: str, message: str, status: int
    ) -> None:
        files = {"index.js": f"exports.handler = () => {{ {code}; return new Promise((r) => setTimeout(r, 60_000)) }}"}
        with node_function(tmp_path, files, "index.handler") as function:
            sent = function.invoke()
            assert sent.kind == "error"
            assert (sent.json["errorType"], sent.json["errorMessage"]) == (kind, message)
            assert function.exit_status() == status
            assert function.api.gets == 1

    def test_a_rejection_beside_an_answer_does_not_take_the_next_event_along(self, tmp_path: Path) -> None:
        script = "exports.handler = async () => { Promise.reject(new Error('lost')); return 'answered' }"
        with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
            sent = function.invoke()
            assert (sent.kind, sent.json) == ("response", "answered")
            assert function.exit_status() == 128
            assert function.api.gets == 1

    def test_process_exit_posts_nothing_and_loses_no_output(self, tmp_path: Path) -> None:
        script = "exports.handler = async () => { process.stdout.write('x'.repeat(300_000) + '\\n'); process.exit(3) }"
        with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
            function.api.queue_event({})
            assert function.exit_status() == 3
            assert function.api.sent.empty()
            assert len(function.output()) == 300_001

    def test_an_answer_given_just_before_an_exit_is_sent(self, tmp_path: Path) -> None:
        script = "exports.handler = (e, c) => { c.succeed('answered'); process.exit(0) }"
        with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
            assert function.returned() == "answered"
            assert function.exit_status() == 0

    def test_a_supervisor_that_is_gone_ends_the_process(self, tmp_path: Path) -> None:
        with node_function(tmp_path, {"index.js": "exports.handler = async () => 1"}, "index.handler") as function:
            assert function.returned() == 1
            function.api.disconnect()
            assert function.exit_status() == 1

    def test_no_supervisor_at_all_ends_the_process(self, tmp_path: Path) -> None:
        files = {"index.js": "exports.handler = async () => 1"}
        with node_function(tmp_path, files, "index.handler", variables={"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1"}) as function:
            assert function.exit_status() == 1
            assert "ECONNREFUSED" in function.output()

    def test_a_next_that_is_refused_ends_the_process(self, tmp_path: Path) -> None:
        with node_function(tmp_path, {"index.js": "exports.handler = async () => 1"}, "index.handler") as function:
            function.api.next_status = 500
            function.api.queue_event({})
            assert function.exit_status() == 1

    def test_a_refused_answer_does_not(self, tmp_path: Path) -> None:
        with node_function(tmp_path, {"index.js": "exports.handler = async () => 1"}, "index.handler") as function:
            function.api.post_status = 413
            assert [function.returned(), function.returned()] == [1, 1]
            assert "413" in function.output()

    def test_a_module_that_never_finishes_loading_ends_with_nodes_own_status(self, tmp_path: Path) -> None:
        with node_function(tmp_path, {"index.mjs": "await new Promise(() => {})"}, "index.handler") as function:
            assert function.exit_status() == 13


@pytest.mark.parametrize(
    "api",
    [
        pytest.param({}, id="plain"),
        pytest.param({"chunked": True}, id="chunked"),
        pytest.param({"closing": True}, id="closing"),
        pytest.param({"piecemeal": 7}, id="in-parts"),
        pytest.param({"piecemeal": 7, "chunked": True}, id="chunked-in-parts"),
    ],
)
def test_every_way_of_answering_is_understood(tmp_path: Path, api: dict[str, int]) -> None:
    files = {"index.js": "exports.handler = async (e) => e"}
    with node_function(tmp_path, files, "index.handler", api=QueuedRuntimeApi(**api)) as function:  # type: ignore[arg-type]
        for text in ("", "ü", "x" * 300):
            assert function.returned({"text": text}) == {"text": text}


@pytest.mark.parametrize("size", [65_000, 1_000_000, 6 * 1024 * 1024 - 20])
def test_large_payloads_pass_unchanged(tmp_path: Path, size: int) -> None:
    with node_function(tmp_path, {"index.js": "exports.handler = async (e) => e"}, "index.handler") as function:
        event = "é" + "x" * (size - 4)
        assert function.returned(event) == event
        assert function.returned([1]) == [1]


def test_an_event_that_is_not_json_is_an_error_of_that_invocation_only(tmp_path: Path) -> None:
    with node_function(tmp_path, {"index.js": "exports.handler = async (e) => e"}, "index.handler") as function:
        sent = function.invoke(raw=b"{nope")
        assert (sent.kind, sent.json["errorType"]) == ("error", "SyntaxError")
        sent = function.invoke(headers={"Lambda-Runtime-Client-Context": "{nope"})
        assert sent.json["errorMessage"].startswith("Cannot parse ClientContext as json: SyntaxError")
        assert function.returned(1) == 1


def test_an_idle_connection_that_the_server_closed_is_made_again(tmp_path: Path) -> None:
    script = "exports.handler = () => new Promise((r) => setTimeout(() => r('answered'), 100))"
    with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
        assert function.returned() == "answered"
        function.api.queue_event({})
        time.sleep(0.05)  # the handler runs: nothing is asked of the server now
        function.api.disconnect()
        assert function.posted().json == "answered"
        assert function.returned() == "answered"


def test_the_function_sees_no_main_module_and_can_collect_garbage(tmp_path: Path) -> None:
    script = "exports.handler = async () => [typeof gc, require.main === undefined, typeof awslambda.streamifyResponse]"
    with node_function(tmp_path, {"index.js": script}, "index.handler") as function:
        assert function.returned() == ["function", True, "function"]


def test_the_bootstrap_needs_no_package_and_no_other_folder() -> None:
    required = {
        name
        for file in BOOTSTRAP.parent.glob("*.cjs")
        for name in re.findall(r"require\(['\"]([^'\"]+)['\"]\)", file.read_text())
        if not name.startswith("node:")
    }
    assert required == {"./errors.cjs", "./node_path.cjs", "./response_stream.cjs", "./runtime_api.cjs"}
