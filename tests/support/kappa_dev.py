"""A real `kappa dev` for tests and benchmarks: the installed console script, a free port, a data directory of its own.

It starts the process, waits until it answers, gives clients that talk to it, and afterwards proves that nothing of it is left: every
descendant has to be gone a few seconds after the gateway, however it ended. It never reaches into the product: what it knows it
learnt from standard output and HTTP, like a user.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.config
import pytest

import process_tree
from whole_payloads import read_payloads

SCRIPTS = Path(sys.executable).parent
"""Where `kappa` and `aws` of this virtualenv are."""

ROLE = "arn:aws:iam::000000000000:role/lambda"
"""Any role: the embedded mode checks the form only."""

RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
"""A Python runtime that is certainly there: the one the tests run on."""

START_SECONDS = 30.0
"""How long a loaded CI machine may take to answer; the budget itself is measured in bench/."""

STOP_SECONDS = 10.0
"""How long an asked-for end may take before it counts as hanging."""

VANISH_SECONDS = 5.0
"""How long descendants may outlive the gateway."""

_ENDPOINT = re.compile(r"http://127\.0\.0\.1:\d+")


def zip_of(files: Mapping[str, str | bytes], *, executable: Sequence[str] = ()) -> bytes:
    """A zip archive with the given contents; names in `executable` get mode 755, all others 644."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o755 if name in executable else 0o644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


_RUNNING: list[KappaDev] = []
"""Started and not ended by this process: their descendants are nobody's orphans."""


class KappaDev:
    """One gateway process and the means to talk to it. Use it through `kappa_dev` or the fixtures below."""

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str],
        arguments: Sequence[str],
        command: Sequence[str | Path] = (SCRIPTS / "kappa",),
    ) -> None:
        self.data_dir = data_dir
        self._command = command
        self._settings = dict(settings)
        self._arguments = list(arguments)
        self._log = data_dir.with_name(data_dir.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Any] = []
        self._endpoint = ""

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return self._endpoint

    @property
    def is_running(self) -> bool:
        """Whether it was started and neither `stop` nor `kill` was called since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Process id of the gateway."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed since its first start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start it and return when `/healthz` answers 200. Raises AssertionError with its output when it does not."""
        assert self._process is None, "already started"
        process_tree.become_subreaper()
        seen = len(self.output)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "KAPPA_", "PYTEST_"))}
        inherited["PATH"] = f"{SCRIPTS}{os.pathsep}{inherited.get('PATH', '')}"
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "dev", "--port", "0", "--data-dir", self.data_dir, *self._arguments],
                env=inherited | {"PYTHONUNBUFFERED": "1"} | self._settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _RUNNING.append(self)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers(self.output[seen:]):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"kappa dev {'ended' if ended else 'did not answer'} at start:\n{self.output[seen:]}")
            time.sleep(0.01)

    def _answers(self, printed: str) -> bool:
        found = _ENDPOINT.search(printed)
        if found is None:
            return False
        self._endpoint = found[0]
        connection = http.client.HTTPConnection(urlsplit(self._endpoint).netloc, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self, *, by: signal.Signals = signal.SIGINT) -> float:
        """End it as Ctrl-C does (or `by` another signal); prove that nothing is left; return the seconds it took."""
        assert self._process is not None, "not started"
        for client in self._clients:
            client.close()
        self._clients.clear()
        before = {process.pid for process in process_tree.descendants(self.pid)}
        begun = time.monotonic()
        self._process.send_signal(by)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._forget()
            raise AssertionError(f"kappa dev did not end within {STOP_SECONDS} s of {by.name}:\n{self.output[-4000:]}") from None
        took = time.monotonic() - begun
        self._forget()
        left = self._wait_until_gone(before)
        assert not left, f"left behind after {by.name}: {left}"
        return took

    def kill(self) -> None:
        """End the gateway with SIGKILL, as a crash would; what it leaves has to vanish by itself."""
        if self.is_running:
            self.stop(by=signal.SIGKILL)

    def _forget(self) -> None:
        self._process = None
        _RUNNING.remove(self)

    def _wait_until_gone(self, before: set[int]) -> dict[int, str]:
        """Descendants that outlive the gateway, with their commands; waits until there are none."""
        deadline = time.monotonic() + VANISH_SECONDS
        while True:
            processes = process_tree.table()
            own_session = os.getsid(0)
            others = [running.pid for running in _RUNNING]
            of_others = {pid for root in others for pid, *_ in process_tree.descendants(root, processes=processes)} | {*others}
            # Orphans come to this process (see become_subreaper). Its own children share its session, those of a gateway do not; what
            # its own children do with sessions is theirs (a PostgreSQL gives one to each of its processes).
            adopted = [
                process.pid
                for process in processes.values()
                if process.parent == os.getpid() and process.session not in (own_session, 0) and process.state != "Z"
            ]
            families = {pid for root in adopted for pid, *_ in process_tree.descendants(root, processes=processes)} | {*adopted}
            orphans = families - of_others
            alive = {pid for pid in before if pid in processes and processes[pid].state != "Z"}
            left = {pid: process_tree.command(pid) for pid in orphans | alive}
            if not left or time.monotonic() > deadline:
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return left
            time.sleep(0.02)

    def client(
        self,
        service: str = "lambda",
        *,
        region: str = "us-east-1",
        keys: tuple[str, str] = ("test", "test"),
        session_token: str | None = None,
        **config: Any,
    ) -> Any:
        """A boto3 client of this gateway, closed with it. It never retries: a test wants the first answer."""
        settings = {"retries": {"total_max_attempts": 1}, "read_timeout": 60, "max_pool_connections": 64, **config}
        made = boto3.session.Session().client(
            service,
            endpoint_url=self.endpoint,
            region_name=region,
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
            aws_session_token=session_token,
            config=botocore.config.Config(**settings),
        )
        if service == "lambda":
            read_payloads(made)
        self._clients.append(made)
        return made

    def environment(self) -> dict[str, str]:
        """Variables for commands that a user would type beside it: this virtualenv first on PATH, fake AWS credentials."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "KAPPA_", "PYTEST_"))}
        return inherited | {
            "PATH": f"{SCRIPTS}{os.pathsep}{inherited.get('PATH', '')}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_PAGER": "",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def aws(self, *arguments: str, cwd: Path | None = None) -> Any:
        """Run the AWS CLI against this gateway; the parsed JSON it prints, or None. Raises AssertionError with its error text."""
        ran = subprocess.run(
            [SCRIPTS / "aws", "--endpoint-url", self.endpoint, "--output", "json", *arguments],
            env=self.environment(),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"aws {' '.join(arguments)}: exit {ran.returncode}\n{ran.stderr}"
        return json.loads(ran.stdout) if ran.stdout.strip() else None

    def create_function(self, name: str, code: Mapping[str, str | bytes], **parameters: Any) -> dict[str, Any]:
        """Create a Python function from sources (handler `app.handler` unless told) and wait until it is Active."""
        client = self.client()
        given: dict[str, Any] = {"Runtime": RUNTIME, "Handler": "app.handler", "Role": ROLE, "Timeout": 10, **parameters}
        client.create_function(FunctionName=name, Code={"ZipFile": zip_of(code, executable=["bootstrap"])}, **given)
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05, "MaxAttempts": 1200})
        described: dict[str, Any] = client.get_function_configuration(FunctionName=name)
        return described


@contextmanager
def kappa_dev(
    data_dir: Path,
    *,
    settings: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    command: Sequence[str | Path] = (SCRIPTS / "kappa",),
) -> Iterator[KappaDev]:
    """Run `kappa dev` for the duration of the block.

    Parameters
    ----------
    data_dir
        Created when missing; given again later, it holds the same functions. Output goes to a file beside it.
    settings
        `KAPPA_*` variables.
    arguments
        More options of `kappa dev`.
    command
        What stands for `kappa`.
    """
    running = KappaDev(data_dir, settings=settings or {}, arguments=arguments, command=command)
    running.start()
    try:
        yield running
    finally:
        if running.is_running:
            running.stop()


@pytest.fixture(scope="module")
def kappa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KappaDev]:
    """One gateway for all tests of a file; each test uses function names of its own."""
    with kappa_dev(tmp_path_factory.mktemp("kappa") / "data") as running:
        yield running


@pytest.fixture
def start_kappa(tmp_path: Path) -> Iterator[Callable[..., KappaDev]]:
    """A function that starts gateways with settings of their own: `start_kappa(KAPPA_IDLE_SECONDS="1")`."""
    started: list[KappaDev] = []

    def start(*arguments: str, data_dir: Path | None = None, **settings: str) -> KappaDev:
        running = KappaDev(data_dir or tmp_path / f"data{len(started)}", settings=settings, arguments=arguments)
        running.start()
        started.append(running)
        return running

    yield start
    for running in started:
        if running.is_running:
            running.stop()
