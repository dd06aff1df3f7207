"""The Python runtime of zip functions: what the interpreter of a function executes. One file, standard library only, Python 3.9+.

It stands between the Runtime API of the supervisor and the customer's handler: it resolves the handler, runs it for one event
after the other and posts what it returns or raises. What a handler, its caller or its logs can see (handler resolution,
``sys.path``, context object, error JSON, log lines) is what AWS's own client ``awslambdaric`` does; what they cannot see is
leaner: a raw socket on which the result of one event and the request for the next travel in one write.

Ways to be started:

    bootstrap.py                     one environment; everything comes by environment variables
    bootstrap.py --official HANDLER  the same paths, but ``awslambdaric`` itself as the client
    (imported by ``zygote.py``)      in a fork of an interpreter that has loaded this file already

It refuses to guess: a Runtime API that goes away ends the process at once, and so does a fork of the handler that comes back here.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import json
import logging
import marshal
import math
import os
import re
import site
import socket
import sys
import time
import traceback
from typing import Any, Callable, NoReturn

# ------------------------------------------------------------------------------------------------------------ JSON
# The client at AWS encodes with simplejson: named tuples become objects, bytes become text, Decimals keep their digits.

_MARK = os.urandom(16).hex()
_MARKED = re.compile('"' + _MARK + '([^"]*)"')
_UTF8_RUNTIMES = re.compile(r"AWS_Lambda_python3\.(1[2-9]|[2-9][0-9])$")


class _Json:
    """Encoder and decoder; made in the environment, because AWS's depends on AWS_EXECUTION_ENV."""

    def __init__(self) -> None:
        ascii_only = not _UTF8_RUNTIMES.match(os.environ.get("AWS_EXECUTION_ENV", ""))
        self._encode = json.JSONEncoder(ensure_ascii=ascii_only, allow_nan=True, default=self._default).encode
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def encode(self, value: Any) -> str:
        """Raises TypeError or ValueError with simplejson's texts."""
        try:
            marshal.dumps(value)  # a C-speed proof that only plain types are inside
            text = self._encode(value)
        except (ValueError, TypeError):
            text = self._encode(_plain(value, set()))
        return _MARKED.sub(r"\1", text) if _MARK in text else text

    def decode(self, data: bytes) -> Any:
        return self._decoder.decode(data.decode("utf-8-sig"))

    @staticmethod
    def _default(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("utf-8")
        kind = type(value)
        if kind.__name__ == "Decimal" and kind.__module__ in ("decimal", "_pydecimal"):
            return math.nan if value.is_nan() else _MARK + str(value)
        as_dict = getattr(value, "_asdict", None)
        if callable(as_dict):
            return as_dict()
        raise TypeError("Object of type %s is not JSON serializable" % kind.__name__)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError("Out of range float values are not JSON compliant: " + name)


def _plain(value: Any, parents: set[int]) -> Any:
    """The same value with named tuples and keys as simplejson writes them."""
    as_dict = None if isinstance(value, (str, bytes, int, float, dict, list)) else getattr(value, "_asdict", None)
    if callable(as_dict):
        value = as_dict()
    if not isinstance(value, (dict, list, tuple)):
        return value
    if id(value) in parents:
        raise ValueError("Circular reference detected")
    parents.add(id(value))
    try:
        if isinstance(value, dict):
            return {_plain_key(key): _plain(item, parents) for key, item in value.items()}
        return [_plain(item, parents) for item in value]
    except RecursionError:
        raise RecursionError("maximum recursion depth exceeded while encoding a JSON object") from None
    finally:
        parents.discard(id(value))


def _plain_key(key: Any) -> Any:
    if isinstance(key, bytes):
        return key.decode("utf-8")
    if key is None or isinstance(key, (str, int, float)):
        return key
    raise TypeError("keys must be str, int, float, bool or None, not " + type(key).__name__)


class Fault(Exception):
    """An error that the runtime, not the customer's code, gives a name to."""

    def __init__(self, kind: str, message: str, trace: list[str] | None = None) -> None:
        self.kind = kind
        self.message = message
        self.trace = trace


def error_result(message: str, kind: str, trace: list[str] | None, request_id: str) -> dict[str, Any]:
    """The error JSON, keys in the order of AWS's Python runtimes."""
    return {"errorMessage": message or "", "errorType": kind or "", "requestId": request_id, "stackTrace": trace or []}


def raised_result(request_id: str) -> dict[str, Any]:
    """The error JSON of the exception being handled, without the frames of this file above the customer's."""
    kind, value, tb = sys.exc_info()
    assert kind is not None
    frames = [(frame.filename, frame.lineno, frame.name, frame.line) for frame in traceback.extract_tb(tb)]
    for position, frame in enumerate(frames):
        if "/bootstrap.py" not in frame[0]:
            frames = frames[position:]
            break
    return error_result(str(value), kind.__name__, traceback.format_list(frames), request_id)  # type: ignore[arg-type]


class _Shown:
    __slots__: list[str] = []

    def __repr__(self) -> str:
        return _represent(self, self.__slots__)


class CognitoIdentity(_Shown):
    __slots__ = ["cognito_identity_id", "cognito_identity_pool_id"]

    def __init__(self, values: dict[str, Any]) -> None:
        self.cognito_identity_id = values.get("cognitoIdentityId")
        self.cognito_identity_pool_id = values.get("cognitoIdentityPoolId")


class Client(_Shown):
    # The order is that of AWS's repr.
    __slots__ = ["installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name"]  # noqa: RUF023

    def __init__(self, values: dict[str, Any]) -> None:
        for name in self.__slots__:
            setattr(self, name, values.get(name))


class ClientContext(_Shown):
    __slots__ = ["custom", "env", "client"]  # noqa: RUF023

    def __init__(self, values: dict[str, Any]) -> None:
        self.custom = values.get("custom")
        self.env = values.get("env")
        client = values.get("client")
        self.client = None if client is None else Client(client)


class LambdaContext:
    """What the handler gets as its second argument; attributes as documented by AWS for Python."""

    def __init__(self, request: Request) -> None:
        self.aws_request_id = request.request_id
        self.log_group_name, self.log_stream_name, self.function_name, self.memory_limit_in_mb, self.function_version = (
            _own_names()
        )
        self.invoked_function_arn = request.function_arn
        self.tenant_id = request.tenant_id
        client = identity = None
        if request.client_context:
            client = _parse_context(request.client_context, "Client Context")
        if request.cognito_identity:
            identity = _parse_context(request.cognito_identity, "Cognito Identity")
        self._w3c_fields: dict[str, str] = {}
        if isinstance(client, dict) and "w3c" in client:
            fields = client.pop("w3c")
            if isinstance(fields, dict):
                names = ("traceparent", "tracestate", "baggage")
                self._w3c_fields = {name: fields[name] for name in names if isinstance(fields.get(name), str)}
        self.client_context = None if client is None else ClientContext(client)
        self.identity = CognitoIdentity(identity or {})
        self._epoch_deadline_time_in_ms = request.deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        remaining = self._epoch_deadline_time_in_ms - int(time.time() * 1000)
        return remaining if remaining > 0 else 0

    def w3c(self) -> dict[str, str]:
        """The W3C trace context of this invocation."""
        return dict(self._w3c_fields)

    def log(self, msg: Any) -> None:
        sys.stdout.write(str(msg))

    def __repr__(self) -> str:
        names = (
            "aws_request_id log_group_name log_stream_name function_name memory_limit_in_mb function_version "
            "invoked_function_arn client_context identity tenant_id"
        )
        return _represent(self, names.split())


@functools.lru_cache(maxsize=1)
def _own_names() -> tuple[str | None, ...]:
    names = ("LOG_GROUP_NAME", "LOG_STREAM_NAME", "FUNCTION_NAME", "FUNCTION_MEMORY_SIZE", "FUNCTION_VERSION")
    return tuple(os.environ.get("AWS_LAMBDA_" + name) for name in names)


def _represent(value: Any, names: list[str]) -> str:
    return "%s([%s])" % (type(value).__name__, ",".join("%s=%s" % (name, getattr(value, name, None)) for name in names))


def _parse_context(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Fault("Runtime.LambdaContextUnmarshalError", "Unable to parse %s JSON: %s" % (name, error)) from None


# --------------------------------------------------------------------------------------------------------- logging
# Lines go to stdout, one write each. A line break inside an uncaught error is a carriage return, so that it stays one event.

_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_RECORD_FIELDS = frozenset(
    "name msg args levelname levelno pathname filename module exc_info exc_text stack_info lineno funcName created msecs "
    "relativeCreated thread threadName processName process taskName aws_request_id tenant_id _frame_type".split()
)
_current: dict[str, str | None] = {"request": None, "tenant": None}


class LambdaLoggerFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.aws_request_id = _current["request"] or ""
        record.tenant_id = _current["tenant"]
        return True


class LambdaLoggerHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _write(self.format(record))


class JsonFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__(datefmt=_TIME_FORMAT)
        self._encode = json.JSONEncoder(ensure_ascii=False, default=str).encode

    def format(self, record: logging.LogRecord) -> str:
        record.levelno = min(50, max(0, record.levelno)) // 10 * 10
        record.levelname = logging.getLevelName(record.levelno)
        info = record.exc_info
        raised = info if info and info[0] else None
        line: dict[str, Any] = {
            "timestamp": self.formatTime(record, self.datefmt),
            "level": record.levelname,
            "message": record.msg if isinstance(record.msg, dict) and not record.args else record.getMessage(),
            "logger": record.name,
            "stackTrace": traceback.format_tb(raised[2]) if raised else None,
            "errorType": raised[0].__name__ if raised else None,
            "errorMessage": str(raised[1]) if raised else None,
            "requestId": getattr(record, "aws_request_id", None),
            "location": "%s:%s:%s" % (record.pathname, record.funcName, record.lineno) if info else None,
        }
        tenant = getattr(record, "tenant_id", None)
        if tenant is not None:
            line["tenantId"] = tenant
        for key, value in record.__dict__.items():
            if key not in _RECORD_FIELDS and key not in line:
                line[key] = value
        return self._encode({key: value for key, value in line.items() if value is not None}) + "\n"


def set_up_logging() -> None:
    """The root logger as on AWS: one handler, UTC, level WARNING unless AWS_LAMBDA_LOG_LEVEL says otherwise."""
    logging.Formatter.converter = time.gmtime
    handler = LambdaLoggerHandler()
    if _json_logs():
        handler.setFormatter(JsonFormatter())
    else:
        line = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
        handler.setFormatter(logging.Formatter(line, "%Y-%m-%dT%H:%M:%S"))
    handler.addFilter(LambdaLoggerFilter())
    root = logging.getLogger()
    root.addHandler(handler)
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    if level == "TRACE":
        level = "DEBUG"
    if level in ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"):
        root.setLevel(level)


def _json_logs() -> bool:
    return os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"


def log_error(result: dict[str, Any], encode: Callable[[Any], str]) -> None:
    """Write an uncaught error as AWS's runtime does."""
    if _json_logs():
        now = time.strftime(_TIME_FORMAT, time.gmtime())
        _write(encode({"timestamp": now, "level": "ERROR", **result}) + "\n")
        return
    first = "[ERROR]"
    if result["errorType"]:
        first += " " + result["errorType"]
    if result["errorMessage"]:
        first += (":" if result["errorType"] else "") + " " + result["errorMessage"]
    lines = [first, "Traceback (most recent call last):"]
    for element in result["stackTrace"]:
        for line in element.splitlines() if element else [""]:
            text = line.lstrip(" ")
            lines.append("\u00a0" * (len(line) - len(text)) + text)
    _write("\r".join(lines) + "\n")


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
    except (OSError, ValueError, AttributeError):
        pass  # the handler has closed or replaced its standard output: an error of its own must not end the runtime


# ----------------------------------------------------------------------------------------------------- Runtime API


class Request:
    """One event with what the Runtime API says about it."""

    __slots__ = tuple(
        "body client_context cognito_identity content_type deadline_ms function_arn request_id tenant_id trace_id".split()
    )

    def __init__(self, headers: dict[str, str], body: bytes) -> None:
        self.body = body
        self.request_id = headers.get("Lambda-Runtime-Aws-Request-Id", "")
        self.deadline_ms = int(headers.get("Lambda-Runtime-Deadline-Ms") or 0)
        self.function_arn = headers.get("Lambda-Runtime-Invoked-Function-Arn")
        self.trace_id = headers.get("Lambda-Runtime-Trace-Id")
        self.client_context = headers.get("Lambda-Runtime-Client-Context")
        self.cognito_identity = headers.get("Lambda-Runtime-Cognito-Identity")
        self.tenant_id = headers.get("Lambda-Runtime-Aws-Tenant-Id")
        self.content_type = headers.get("Content-Type")


class RuntimeApi:
    """The Runtime API on one keep-alive connection. Speaks only to Kappa's supervisor: its spelling, bodies with Content-Length."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._tail = " HTTP/1.1\r\nHost: %s\r\n" % address
        self._next = ("GET /2018-06-01/runtime/invocation/next" + self._tail + "\r\n").encode()
        self._answers = 0
        self._usual_answer = b"\0"

    def ask(self) -> None:
        self._socket.sendall(self._next)

    def post(self, path: str, body: bytes, content_type: str, *, error_type: str = "", then_ask: bool = True) -> None:
        """Post a result and, in the same write, ask for the next event."""
        kind = "Lambda-Runtime-Function-Error-Type: %s\r\n" % error_type if error_type else ""
        head = "POST /2018-06-01/runtime/%s%sContent-Type: %s\r\n%sContent-Length: %d\r\n\r\n" % (
            path, self._tail, content_type, kind, len(body),
        )  # fmt: skip
        self._answers += 1
        self._socket.sendall(head.encode() + body + (self._next if then_ask else b""))

    def settle(self) -> None:
        """Read the answers to what was posted. A refusal is the supervisor's business, not the handler's."""
        while self._answers:
            self._answers -= 1
            if not self._buffer:
                self._buffer = self._read()
            if self._buffer.startswith(self._usual_answer):
                self._buffer = self._buffer[len(self._usual_answer) :]
                continue
            before = self._buffer
            self._receive()
            if before.endswith(self._buffer):  # it was all there: the next one will look the same
                self._usual_answer = before[: len(before) - len(self._buffer)]

    def next(self) -> Request:
        """The event that was asked for."""
        self.settle()
        status, headers, body = self._receive()
        if status != 200:
            raise ConnectionError("the Runtime API answered %d" % status)
        return Request(headers, body)

    def _receive(self) -> tuple[int, dict[str, str], bytes]:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        while end < 0:
            buffer += self._read()
            end = buffer.find(b"\r\n\r\n")
        lines = buffer[:end].decode("utf-8").split("\r\n")
        headers = dict([line.split(": ", 1) for line in lines[1:]])
        start = end + 4
        size = int(headers.get("Content-Length") or 0)
        if len(buffer) - start < size:
            body = bytearray(size)
            view = memoryview(body)
            got = len(buffer) - start
            view[:got] = buffer[start:]
            while got < size:
                count = self._socket.recv_into(view[got:])
                got += count or _gone()
            self._buffer = b""
            return int(lines[0][9:12]), headers, bytes(body)
        self._buffer = buffer[start + size :]
        return int(lines[0][9:12]), headers, buffer[start : start + size]

    def _read(self) -> bytes:
        return self._socket.recv(65536) or _gone()


def _gone() -> NoReturn:
    raise ConnectionError("the Runtime API went away")


# --------------------------------------------------------------------------------------------------------- handler


def find_handler(name: str) -> Callable[[Any, LambdaContext], Any]:
    """``module.function``, split at the last dot; slashes in the module part are dots. Raises Fault."""
    try:
        module_name, function_name = name.rsplit(".", 1)
    except ValueError as error:
        raise Fault("Runtime.MalformedHandlerName", "Bad handler '%s': %s" % (name, error)) from None
    try:
        if module_name.split(".")[0] in sys.builtin_module_names:
            raise Fault("Runtime.BuiltInModuleConflict", "Cannot use built-in module %s as a handler module" % module_name)
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise Fault("Runtime.ImportModuleError", "Unable to import module '%s': %s" % (module_name, error)) from None
    except SyntaxError as error:
        trace = ['  File "%s" Line %s\n    %s' % (error.filename, error.lineno, error.text)]
        message = "Syntax error in module '%s': %s" % (module_name, error)
        raise Fault("Runtime.UserCodeSyntaxError", message, trace) from None
    try:
        return getattr(module, function_name)  # type: ignore[no-any-return]
    except AttributeError:
        message = "Handler '%s' missing on module '%s'" % (function_name, module_name)
        raise Fault("Runtime.HandlerNotFound", message) from None


def run_handler(handler: Callable[[Any, LambdaContext], Any], request: Request, codec: _Json) -> tuple[bytes, str]:
    """Call the handler with the event; the body and content type of its result. Raises Fault, or what the handler raises."""
    context = LambdaContext(request)
    event: Any = request.body
    if request.content_type == "application/json":
        try:
            event = codec.decode(request.body)
        except ValueError as error:
            raise Fault("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % error) from None
    result = handler(event, context)
    if isinstance(result, bytes):
        return result, "application/unknown"
    try:
        return codec.encode(result).encode(), "application/json"
    except Exception as error:  # whatever a customer's object raises while it is encoded is a marshalling error
        raise Fault("Runtime.MarshalError", "Unable to marshal response: %s" % error) from None


def serve(handler_name: str, address: str) -> NoReturn:
    """Init, then events for ever."""
    codec = _Json()
    api = RuntimeApi(address)
    failed = None
    try:
        set_up_logging()
        handler = find_handler(handler_name)
    except Fault as fault:
        failed = error_result(fault.message, fault.kind, fault.trace, "")
    except Exception:  # anything that the customer's module raises while it is imported
        failed = raised_result("")
    if failed is not None:
        logging.getLogger().warning(
            "LAMBDA_WARNING: Unhandled exception. The most likely cause is an issue in the function code.\r"
        )
        log_error(failed, codec.encode)
        _flush()
        body = codec.encode(failed).encode("utf-8", "backslashreplace")
        api.post("init/error", body, "application/json", error_type=failed["errorType"], then_ask=False)
        api.settle()
        sys.exit(1)
    own = os.getpid()
    api.ask()
    while True:
        request = api.next()
        request_id = request.request_id
        _current["request"] = request_id
        _current["tenant"] = request.tenant_id
        if request.trace_id is not None:
            os.environ["_X_AMZN_TRACE_ID"] = request.trace_id
        elif "_X_AMZN_TRACE_ID" in os.environ:
            del os.environ["_X_AMZN_TRACE_ID"]
        failed = None
        try:
            body, content_type = run_handler(handler, request, codec)
        except Fault as fault:
            failed = error_result(fault.message, fault.kind, fault.trace, request_id)
        except Exception:  # the handler's own
            failed = raised_result(request_id)
        if os.getpid() != own:
            os._exit(0)  # a fork inside the handler came back: the Runtime API connection belongs to the parent
        path = "invocation/%s/" % request_id
        if failed is None:
            _flush()
            api.post(path + "response", body, content_type)
        else:
            log_error(failed, codec.encode)
            _flush()
            api.post(path + "error", codec.encode(failed).encode("utf-8", "backslashreplace"), "application/json")
        request = failed = body = None  # type: ignore[assignment]  # nothing of this event stays alive while waiting


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # a handler may close its streams or put something else there


# -------------------------------------------------------------------------------------------------------- start-up


def set_paths() -> None:
    """``sys.path`` as on AWS: the task, the layers, the SDK folder, the standard library; nothing else of this machine."""
    variables = os.environ
    task = variables["LAMBDA_TASK_ROOT"]
    runtime = variables["LAMBDA_RUNTIME_DIR"]
    layers = variables.pop("_KAPPA_OPT", "/opt")
    extra = variables.pop("_KAPPA_CLIENT", "")
    own = os.path.dirname(os.path.abspath(__file__))
    given = [entry for entry in variables.get("PYTHONPATH", "").split(":") if entry]
    library = [entry for entry in sys.path if entry and os.path.abspath(entry) != own and entry not in given]
    version = "python%d.%d" % sys.version_info[:2]
    sys.path[:] = library
    known = set(library)
    site.addsitedir(task, known)
    if given == [runtime]:
        for folder in (layers + "/python/lib/" + version + "/site-packages", layers + "/python"):
            if os.path.isdir(folder):
                site.addsitedir(folder, known)
    else:
        sys.path.extend(entry for entry in given if entry != runtime)
    added = [entry for entry in sys.path if entry not in library]
    sys.path[:] = added + [runtime] + ([extra] if extra else []) + library
    variables["PYTHONPATH"] = runtime
    # Without this, a task root that this user may write to would collect __pycache__ (on AWS it is read-only).
    sys.dont_write_bytecode = True


def _prepare_process() -> None:
    if not hasattr(builtins, "exit"):  # started with -S: the names that the site module gives to every program
        site.setquit()  # type: ignore[attr-defined]
        site.setcopyright()  # type: ignore[attr-defined]
        site.sethelper()  # type: ignore[attr-defined]
    # New ones: those of a zygote were made for other descriptors. A whole line is one write, so that two processes do not mix.
    sys.stdout = sys.__stdout__ = open(1, "w", 1, encoding="utf-8", errors="surrogateescape", closefd=False)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # type: ignore[misc]
    sys.argv = ["/var/runtime/bootstrap.py"]


def run_environment() -> NoReturn:
    _prepare_process()
    set_paths()
    try:
        serve(os.environ["_HANDLER"], os.environ["AWS_LAMBDA_RUNTIME_API"])
    except ConnectionError:
        os._exit(1)  # the supervisor is gone, and so is whoever would read a message


def run_official(handler: str) -> None:
    """AWS's own client, found on the path that a function has."""
    import runpy

    _prepare_process()
    set_paths()
    sys.argv = ["awslambdaric", handler]
    runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--official"]:
        run_official(sys.argv[2])
    else:
        run_environment()
