"""All settings of the operator in one place: read once at start, from ``KAPPA_*`` variables.

Each field documents its unit and default; nothing else in the operator reads the process environment. Settings are checked here, so
that a wrong value is one clear line at start. What shapes a pod (:class:`PodSettings`) and who may talk to it
(:class:`NetworkSettings`) are handed to the pure reconcile functions as frozen structs, so that those need no settings library.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_FAMILIES: Final = ("python", "nodejs", "provided")
"""The runtime images that Kappa builds; see ``runtimes/*/Dockerfile``."""


METADATA_ADDRESSES: Final = ("169.254.169.254/32", "fd00:ec2::254/128")
"""Where clouds hand out a node's own credentials; the second is AWS's over IPv6."""


class SettingsError(Exception):
    """A setting is wrong; the message is one line for the terminal."""


class Egress(msgspec.Struct, frozen=True):
    """Addresses that function pods may reach besides public ones."""

    cidr: str
    port: int | None = None
    """None: every port."""


class PodSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every function pod has in common."""

    runtime_images: dict[str, str] = {}
    """Runtime identifier → image; wins over prefix and tag."""
    image_prefix: str = "kappa/"
    image_tag: str = "dev"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    gateways: str
    """``dns:<host>:<port>``, handed to the supervisor."""
    link_name: str
    """The name in the gateways' certificate."""
    memory_allowance_mib: int = 64
    tmp_in_memory_mib: int = 512
    """Largest ``/tmp`` that is kept in memory."""
    cpu_limit: bool = False
    runtime_class_name: str | None = None
    priority_class_name: str | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()

    def image(self, runtime: str) -> str | None:
        """The image that runs functions of ``runtime``; None where no image does."""
        if runtime in self.runtime_images:
            return self.runtime_images[runtime]
        if runtime.startswith("provided"):
            if "provided" in self.runtime_images:
                return self.runtime_images["provided"]
            runtime = "provided"
        if not self.image_prefix or not runtime.startswith(_FAMILIES):
            return None
        return f"{self.image_prefix}runtime-{runtime}:{self.image_tag}"


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who function pods may talk to."""

    release_namespace: str
    gateway_labels: dict[str, str]
    gateway_ports: tuple[int, ...]
    dns_namespace: str
    dns_labels: dict[str, str]
    dns_ports: tuple[int, ...] = (53,)
    dns_cidrs: tuple[str, ...] = ()
    cluster_cidrs: tuple[str, ...] = ()
    """Pods, Services and nodes: never reached, public or not."""
    families: frozenset[int] = frozenset((4, 6))
    """Versions of IP that pods have addresses of."""
    allowed: tuple[Egress, ...] = ()


class Settings(BaseSettings):
    """Settings of ``kappa operator``. The variable of a field is its name in capitals behind ``KAPPA_``."""

    model_config = SettingsConfigDict(env_prefix="KAPPA_", extra="ignore", validate_default=True)

    # -- where it runs ---------------------------------------------------------------------------------------------
    namespace: str = Field("kappa-system", description="Namespace of the release: its Secrets, its Leases, its gateways.")
    pod_name: str = Field(default_factory=socket.gethostname, description="Names this replica in the Lease and in events.")
    host: str = Field("0.0.0.0", description="Address of /healthz, /readyz and /metrics.")  # noqa: S104 - probes come from the node
    port: int = Field(8080, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics.")

    # -- which functions -------------------------------------------------------------------------------------------
    namespace_default: str = Field(
        "default", description="Namespace that is account 000000000000 without an annotation that says so."
    )
    watch_namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="The only namespaces that are served, comma separated; empty serves all that have an account."
    )
    region: str = Field("us-east-1", description="Region of objects without the label lambda.kappa.dev/region.")

    # -- pods ------------------------------------------------------------------------------------------------------
    runtime_images: dict[str, str] = Field(
        default_factory=dict, description='Images as JSON, such as {"python3.12": "registry/runtime:1"}; wins over the prefix.'
    )
    image_prefix: str = Field("kappa/", description="Images are <prefix>runtime-<runtime>:<tag>.")
    image_tag: str = Field("dev", description="See image_prefix.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="For function pods.")
    image_pull_secrets: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Names of Secrets, comma separated, in the functions' namespaces."
    )
    link_service: str = Field("kappa-gateway-links", description="Headless Service by which pods find every gateway.")
    link_port: int = Field(9443, ge=1, le=65535, description="Port of the links.")
    link_name: str = Field("", description="Name in the gateways' certificate; by default that of the headless Service.")
    memory_allowance_mib: int = Field(64, ge=0, description="Memory of a pod beyond the function's: what the supervisor needs.")
    tmp_in_memory_mib: int = Field(
        512,
        ge=0,
        description="Largest /tmp (ephemeralStorage) that is kept in memory, and full at its size; a larger one is on disk.",
    )
    cpu_limit: bool = Field(False, description="Limit a pod's CPU to what it requests (memorySize / 1769 cores).")
    runtime_class_name: str | None = Field(None, description="RuntimeClass of function pods, such as gvisor.")
    priority_class_name: str | None = Field(None, description="PriorityClass of function pods.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of nodes for function pods, as JSON.")
    tolerations: list[dict[str, Any]] = Field(default_factory=list, description="Tolerations of function pods, as JSON.")

    # -- networks --------------------------------------------------------------------------------------------------
    network_policies: bool = Field(True, description="Make NetworkPolicies in the functions' namespaces.")
    gateway_labels: dict[str, str] = Field(
        default_factory=lambda: {"app.kubernetes.io/name": "kappa", "app.kubernetes.io/component": "gateway"},
        description="Labels of the gateways' pods, as JSON.",
    )
    gateway_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (9443, 9000), description="Ports of the gateways' pods that functions may reach, comma separated."
    )
    dns_namespace: str = Field("kube-system", description="Namespace of the cluster's DNS.")
    dns_labels: dict[str, str] = Field(
        default_factory=lambda: {"k8s-app": "kube-dns"}, description="Labels of the DNS server's pods, as JSON."
    )
    dns_ports: Annotated[tuple[int, ...], NoDecode] = Field((53,), description="Ports of the DNS server's pods, comma separated.")
    dns_cidrs: Annotated[tuple[str, ...], NoDecode] = Field(
        ("169.254.20.10/32",), description="Where DNS is besides the kube-dns pods; the default is NodeLocal DNSCache."
    )
    cluster_cidrs: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Networks of pods, Services and nodes outside the private ranges; functions never reach them."
    )
    pod_ips: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="This pod's addresses, comma separated: policies speak of the versions of IP among them, of both where none is "
        "given. Network plugins without IPv6 refuse rules about it.",
    )
    allowed_egress: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Further addresses that functions may reach: CIDR or CIDR:port, comma separated."
    )

    # -- pace ------------------------------------------------------------------------------------------------------
    wanted_seconds: float = Field(3600, gt=0, description="How long a version that was invoked without an alias is kept ready.")
    linger_seconds: float = Field(
        30, ge=0, description="How long a Deployment without use is left alone: time for what names it to be seen."
    )
    resync_seconds: float = Field(600, gt=0, description="Seconds between two looks at everything.")
    writes_per_second: float = Field(50, gt=0, description="Writes to the API server, sustained.")
    write_burst: int = Field(100, ge=1, description="Writes that may come at once.")
    workers: int = Field(16, ge=1, description="Objects that are reconciled at the same time.")
    lease_seconds: float = Field(
        15, ge=3, description="After this many seconds without a sign of the leader a standby takes over."
    )
    silence_seconds: float = Field(
        150, gt=0, description="A watch that has been silent for so long is dead; Kubernetes sends a bookmark a minute."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Of its own log lines.")

    @field_validator(
        "watch_namespaces",
        "image_pull_secrets",
        "gateway_ports",
        "dns_ports",
        "dns_cidrs",
        "cluster_cidrs",
        "pod_ips",
        "allowed_egress",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("runtime_class_name", "priority_class_name", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        """A chart renders what is not set as an empty string."""
        return None if value == "" else value

    @field_validator("dns_cidrs", "cluster_cidrs")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(each)) for each in value)

    @field_validator("allowed_egress")
    @classmethod
    def _egress(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            parse_egress(each)
        return value

    @field_validator("namespace", "namespace_default", "link_service")
    @classmethod
    def _label(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
            raise ValueError("not a name that Kubernetes accepts")
        return value

    @property
    def pods(self) -> PodSettings:
        """What shapes a function pod."""
        host = f"{self.link_service}.{self.namespace}.svc"
        return PodSettings(
            runtime_images=self.runtime_images,
            image_prefix=self.image_prefix,
            image_tag=self.image_tag,
            image_pull_policy=self.image_pull_policy,
            image_pull_secrets=self.image_pull_secrets,
            gateways=f"dns:{host}:{self.link_port}",
            link_name=self.link_name or host,
            memory_allowance_mib=self.memory_allowance_mib,
            tmp_in_memory_mib=self.tmp_in_memory_mib,
            cpu_limit=self.cpu_limit,
            runtime_class_name=self.runtime_class_name,
            priority_class_name=self.priority_class_name,
            node_selector=self.node_selector,
            tolerations=tuple(self.tolerations),
        )

    @property
    def network(self) -> NetworkSettings:
        """Who function pods may talk to."""
        return NetworkSettings(
            release_namespace=self.namespace,
            gateway_labels=self.gateway_labels,
            gateway_ports=self.gateway_ports,
            dns_namespace=self.dns_namespace,
            dns_labels=self.dns_labels,
            dns_ports=self.dns_ports,
            dns_cidrs=self.dns_cidrs,
            cluster_cidrs=self.cluster_cidrs,
            families=frozenset(ipaddress.ip_address(each).version for each in self.pod_ips) or frozenset((4, 6)),
            allowed=tuple(parse_egress(each) for each in self.allowed_egress),
        )


def parse_egress(text: str) -> Egress:
    """Read ``CIDR`` or ``CIDR:port``. Raises ValueError."""
    address, slash, rest = text.partition("/")
    prefix, colon, port = rest.partition(":")
    network = ipaddress.ip_network(address + slash + prefix)
    if any(network == ipaddress.ip_network(each) for each in METADATA_ADDRESSES):
        raise ValueError(f"{text}: functions never reach the metadata address of clouds")
    cidr = str(network)
    if not colon:
        return Egress(cidr)
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text}: the port is a number up to 65535")
    return Egress(cidr, int(port))


def load(**options: object) -> Settings:
    """Settings from the environment with ``options`` (those that are not None) on top. Raises SettingsError."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        text = str(first["msg"]).removeprefix("Value error, ")
        raise SettingsError(f"KAPPA_{where.upper()}: {text}" if where else text) from None
