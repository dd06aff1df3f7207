"""A gateway of links only, as pods see one: TLS, tokens that somebody vouches for, archives by link; and a pod's first process.

    certificates = Certificates(folder)
    async with pod_gateway(certificates, tokens) as gateway, Pod(folder, certificates, gateways=[gateway.address]) as pod:
        spec = gateway.python("def handler(event, context): return event")
        assert await gateway.json(spec, {"a": 1}) == {"a": 1}

Without a cluster: the pod is a process of this machine with folders of its own in the place of /var/task and the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import io
import ipaddress
import itertools
import json
import os
import signal
import socket
import ssl
import sys
import threading
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kappa_core.limits import Limits
from kappa_core.link import frames
from kappa_core.ports.environments import ProviderError
from kappa_core.spec import Archive, VersionSpec
from kappa_gateway.links.assembly import GatewayLinks, Membership
from kappa_gateway.links.sealing import SpecSeal
from kappa_gateway.links.server import PodIdentity, VouchError
from made_specs import version_spec

LINK_NAME = "link.kappa.internal"
REVISION = "uid-f.$LATEST.1"
TOKEN = "token of the pod"
POD = PodIdentity("shop", "f-1", "0b7e", REVISION)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Certificates:
    """An authority of its own, and a certificate of the gateways by it. Both as files in ``folder``."""

    def __init__(self, folder: Path, *, name: str = LINK_NAME) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = folder / "ca.crt"
        self._pem = folder / "tls.pem"
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
        root = _certificate(authority, authority, key.public_key(), key, x509.BasicConstraints(ca=True, path_length=0))
        self.authority.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        leaf = _certificate(subject, authority, own.public_key(), key, names)
        self._pem.write_bytes(
            own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + leaf.public_bytes(serialization.Encoding.PEM)
        )

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pem)
        return context


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    return builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints)).sign(signer, hashes.SHA256())


class KnownTokens:
    """A Vouch that knows some tokens: the in-memory twin of the one that asks the API server."""

    def __init__(self, pods: Mapping[str, PodIdentity] | None = None, *, gateways: Sequence[str] = ()) -> None:
        self.pods = dict(pods or {})
        self.gateways = set(gateways)
        self.asked: list[str] = []
        self.away = False
        """Whoever knows is out of reach."""
        self.answers = asyncio.Event()
        """Cleared: questions wait."""
        self.answers.set()

    async def pod(self, token: str, /) -> PodIdentity | None:
        await self._think(token)
        return self.pods.get(token)

    async def gateway(self, token: str, /) -> bool:
        await self._think(token)
        return token in self.gateways

    async def _think(self, token: str) -> None:
        self.asked.append(token)
        await self.answers.wait()
        if self.away:
            raise VouchError("the API server is away")


class SparePods:
    """An EnvironmentProvider that makes nothing: it assigns to pods that have greeted, and waits for those that have not."""

    def __init__(self, links: GatewayLinks) -> None:
        self._links = links
        self._assigned: dict[str, str] = {}
        """Supervisor by revision."""
        self.wanted: dict[str, tuple[VersionSpec, list[str]]] = {}
        self.up: list[str] = []
        """Supervisors that are linked."""

    async def start(self, spec: VersionSpec, environment_ids: list[str], /) -> None:
        known, ids = self.wanted.get(spec.revision, (spec, []))
        self.wanted[spec.revision] = (known, ids + environment_ids)
        self._offer()

    async def stop(self, _revision: str, _environment_ids: list[str], /) -> None:
        raise ProviderError("pods of a test end by themselves")

    async def stop_version(self, revision: str, /) -> None:
        self.wanted.pop(revision, None)

    async def close(self) -> None:
        self.wanted.clear()

    def supervisor_up(self, supervisor_id: str, /) -> None:
        self.up.append(supervisor_id)
        self._offer()

    def supervisor_down(self, supervisor_id: str, /) -> None:
        if supervisor_id in self.up:
            self.up.remove(supervisor_id)

    def environment_gone(self, _supervisor_id: str, _environment_id: str, /) -> None:
        pass

    def _offer(self) -> None:
        for revision, (spec, ids) in list(self.wanted.items()):
            for supervisor_id in self.up:
                if self._links.port.assign(supervisor_id, spec) and self._links.port.start(supervisor_id, ids):
                    del self.wanted[revision]
                    break


class _Zips(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, body = self.server.answers.get(self.path, (404, b""))
        if callable(body):
            status, body = body()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class ArchiveServer(ThreadingHTTPServer):
    """Serves archives by path; ``answers`` may be changed at any time."""

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Zips)
        self.host = host
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []

    def offer(self, files: Mapping[str, str], *, status: int = 200) -> Archive:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        data = buffer.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        path = f"/{digest}?signature=x"
        self.answers[path] = (status, data)
        return Archive(url=f"http://{self.host}:{self.server_port}{path}", sha256=digest, size=len(data))

    @contextlib.contextmanager
    def serving(self) -> Iterator[Self]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class PodGateway:
    """See the module; use :func:`pod_gateway`."""

    def __init__(self, links: GatewayLinks, provider: SparePods, address: str, logs: list[str]) -> None:
        self.links = links
        self.provider = provider
        self.address = address
        self.logs = logs
        self._numbers = itertools.count(1)

    async def invoke(self, spec: VersionSpec, payload: bytes = b"{}") -> tuple[frames.Result, bytes]:
        number = next(self._numbers)
        request = frames.Invoke(request_id=f"{id(self):012x}-{number}", function_arn=spec.function_arn)
        return await self.links.port.invoke(spec=spec, function_key="f", reserved=None, invoke=request, payload=payload)

    async def json(self, spec: VersionSpec, event: Any = None) -> Any:
        """The answer of a function that does not fail."""
        result, payload = await self.invoke(spec, json.dumps(event).encode())
        assert not result.function_error, payload
        return json.loads(payload)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)


def python_spec(**changes: Any) -> VersionSpec:
    return version_spec("f", **({"revision": REVISION} | changes))


@contextlib.asynccontextmanager
async def pod_gateway(
    certificates: Certificates,
    tokens: KnownTokens,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    idle_seconds: float = 300.0,
    holder: str = "",
) -> AsyncIterator[PodGateway]:
    """``holder``: another gateway that holds the scaler; this one starts nothing then."""
    address = f"tls:{host}:{port or free_port()}"
    logs: list[str] = []
    links = await GatewayLinks.open(
        membership=Membership(me=address, holder=holder),
        limits=Limits(),
        idle_seconds=idle_seconds,
        on_logs=lambda _spec, lines, _names: logs.extend(line.message for line in lines),
        on_cause=lambda *_: None,
        ssl=certificates.context(),
        vouch=tokens,
        seal=SpecSeal(b"a key of all gateways"),
    )
    provider = SparePods(links)
    if not holder:
        links.provide(provider, news=provider)
    try:
        yield PodGateway(links, provider, address, logs)
    finally:
        await links.close()


class Pod:
    """The first process of a pod, in an ``async with`` block. ``output`` is what it said on its standard error, once it has ended."""

    def __init__(
        self, folder: Path, certificates: Certificates, *, gateways: Sequence[str], token: str = TOKEN, uid: str = POD.uid
    ) -> None:
        self.folder = folder
        for name in ("identity", "work", "task", "opt"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.token = folder / "identity" / "token"
        self.token.write_text(token)
        self.authority = folder / "identity" / "ca.crt"
        self.authority.write_bytes(certificates.authority.read_bytes())
        self.variables = {
            "PATH": os.environ["PATH"],
            "KAPPA_POD_NAME": POD.name,
            "KAPPA_POD_NAMESPACE": POD.namespace,
            "KAPPA_POD_UID": uid,
            "KAPPA_GATEWAYS": ",".join(gateways),
            "KAPPA_LINK_NAME": LINK_NAME,
            "KAPPA_RUNTIME_COMMAND": os.path.realpath(sys.executable),
            "KAPPA_IDENTITY_DIR": str(folder / "identity"),
            "KAPPA_WORK_DIR": str(folder / "work"),
            "KAPPA_TASK_DIR": str(folder / "task"),
            "KAPPA_OPT_DIR": str(folder / "opt"),
        }
        self.output = ""
        self._errors = folder / "stderr"

    @property
    def pid(self) -> int:
        return self._process.pid

    async def __aenter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "kappa_runtime.pod",
                env=self.variables,
                stderr=errors,
                stdin=asyncio.subprocess.DEVNULL,
            )
        return self

    def terminate(self) -> None:
        """SIGTERM, as the kubelet sends it."""
        self._process.terminate()

    async def ended(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(20):
            code = await self._process.wait()
        self.output = self._errors.read_text()
        return code

    @property
    def lives(self) -> bool:
        return self._process.returncode is None

    def said(self) -> str:
        return self._errors.read_text()

    async def __aexit__(self, *_: object) -> None:
        if self.lives:
            self._process.send_signal(signal.SIGKILL)
        await self.ended()
