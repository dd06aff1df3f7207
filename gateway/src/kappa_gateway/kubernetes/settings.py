"""All settings of a gateway in a cluster: read once at start, from ``KAPPA_*`` variables, which the chart sets.

The sibling of :mod:`kappa_gateway.settings` (the laptop's); what both have keeps its name and meaning. Nothing else in the gateway reads
the process environment. What is secret in files (certificates, the signing key) is named here by path and read by the assembly.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from kappa_core.link.addresses import tls_address
from kappa_gateway.settings import GatewaySettings, service_endpoints, split, validated

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class ClusterSettings(GatewaySettings):
    """Settings of ``kappa gateway``. The variable of a field is its name in capitals behind ``KAPPA_``."""

    # -- where it runs and listens ---------------------------------------------------------------------------------
    namespace: str = Field("kappa-system", description="Namespace of the release: its Secrets, its Lease, its gateways.")
    pod_name: str = Field(default_factory=socket.gethostname, description="Names this gateway in the Lease.")
    pod_ip: str = Field("127.0.0.1", description="Address at which pods and other gateways reach this one.")
    host: str = Field("0.0.0.0", description="Address of the Lambda API.")  # noqa: S104 - a Service stands in front
    port: int = Field(9000, ge=0, le=65535, description="TCP port of the Lambda API.")
    link_port: int = Field(9443, ge=0, le=65535, description="TCP port where pods and other gateways dial this one.")
    link_service: str = Field("kappa-gateway-links", description="Headless Service by which pods find every gateway.")
    service_account: str = Field("kappa-gateway", description="ServiceAccount by which gateways know each other.")
    link_name: str = Field("", description="Name in the gateways' certificate; by default that of the headless Service.")
    link_tls_dir: Path = Field(
        Path("/etc/kappa/link-tls"), description="Folder of the Secret kappa-link-tls: tls.crt, tls.key, ca.crt."
    )
    link_token_file: Path = Field(
        Path("/var/run/kappa/token"), description="This gateway's ServiceAccount token of audience lambda.kappa.dev/link."
    )
    signing_key_file: Path = Field(
        Path("/etc/kappa/signing/key"), description="The key of the Secret kappa-signing: session keys and code links."
    )
    service: str = Field("kappa-gateway", description="Service of the Lambda API, by whose names requests may call it.")
    gateway_url: str = Field(
        "", description="URL at which function pods reach the Lambda API and their code; by default the Service's."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names (comma separated) that requests may name besides addresses, loopback names and the Service's; "
        "* allows all.",
    )

    # -- which functions -------------------------------------------------------------------------------------------
    namespace_default: str = Field(
        "default", description="Namespace that is account 000000000000 without an annotation that says so."
    )
    watch_namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="The only namespaces that are served, comma separated; empty serves all that have an account."
    )
    region: str = Field("us-east-1", description="Region of objects without the label lambda.kappa.dev/region.")

    # -- who may call ----------------------------------------------------------------------------------------------
    auth_mode: Literal["required", "anonymous"] = Field(
        "required", description="required: signatures or bearer tokens; anonymous: anyone who reaches the port runs code."
    )
    token_audiences: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Audiences (comma separated) of bearer tokens that are taken; empty: the API server's own."
    )
    session_seconds: float = Field(
        365 * 86400.0, gt=0, description="How long the session keys of an environment are good, in seconds."
    )

    # -- what it keeps ---------------------------------------------------------------------------------------------
    postgres_dsn: SecretStr | None = Field(
        None, description="postgresql://… of the database that holds code and asynchronous events."
    )
    blobs_s3_bucket: str | None = Field(None, description="Bucket that holds code instead of PostgreSQL.")
    blobs_s3_endpoint: str | None = Field(None, description="URL of the S3 service of that bucket; without it AWS's.")
    blobs_s3_region: str | None = Field(None, description="Region of that bucket; by default the gateway's.")
    blobs_s3_prefix: str = Field("", description="Prefix of the keys in that bucket.")
    blobs_s3_access_key_id: str | None = Field(None, description="Key for that bucket; without it the SDK's usual chain.")
    blobs_s3_secret_access_key: SecretStr | None = Field(None, description="See blobs_s3_access_key_id.")
    cache_dir: Path = Field(
        Path("/var/cache/kappa"), description="Scratch space of archives on their way; may be empty at start."
    )

    cache_bytes: int = Field(
        1024**3, ge=1024 * 1024, description="Bytes of archives in cache_dir; the volume needs room for more."
    )

    # -- other AWS services ----------------------------------------------------------------------------------------
    code_from_private_addresses: bool = Field(
        False, description="Let resources name code at https URLs that lead to private, loopback and link-local addresses."
    )
    cluster_cidrs: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Networks of pods, Services and nodes outside the private ranges (comma separated); just as private."
    )

    # -- running functions -----------------------------------------------------------------------------------------
    runtimes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("python3.11", "python3.12", "python3.13", "nodejs22.x", "provided", "provided.al2", "provided.al2023"),
        description="Runtimes (comma separated) that an image is there for.",
    )
    runtime_images: dict[str, str] = Field(
        default_factory=dict, description="Images by runtime, as JSON, as the operator has them; their runtimes count as known."
    )
    max_environments: int = Field(1000, ge=1, description="Environments of one function that the scaler ever starts.")
    max_environments_total: int = Field(10_000, ge=1, description="Environments of all functions that the scaler ever starts.")

    # -- asynchronous invocations ----------------------------------------------------------------------------------
    async_concurrency: int = Field(
        100, ge=1, description="Asynchronous events in hand at once at each gateway; one function alone gets half of it."
    )

    # -- looking at it, and its end --------------------------------------------------------------------------------
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Of its own log lines.")
    function_logs: bool = Field(True, description="Every line that functions log as one JSON line on standard output.")
    log_bytes: int = Field(
        64 * 1024 * 1024, ge=1024 * 1024, description="Bytes of function logs that are kept in memory for `kappa logs`."
    )
    drain_seconds: float = Field(
        840.0, ge=0, description="How long invocations under way may still take after SIGTERM; the chart's grace is longer."
    )

    @field_validator(
        "allowed_hosts",
        "watch_namespaces",
        "token_audiences",
        "cluster_cidrs",
        "runtimes",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return split(value)

    @field_validator("cluster_cidrs")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(each)) for each in value)

    @field_validator("namespace", "namespace_default", "link_service", "service")
    @classmethod
    def _label(cls, value: str) -> str:
        if not _LABEL.fullmatch(value):
            raise ValueError("not a name that Kubernetes accepts")
        return value

    @field_validator("gateway_url", "endpoint_url", "blobs_s3_endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("a URL begins with http:// or https://")
        return value

    @field_validator("endpoint_url", "blobs_s3_bucket", "blobs_s3_endpoint", "blobs_s3_region", "postgres_dsn", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        """A chart renders what is not set as an empty string."""
        return None if value == "" else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.blobs_s3_access_key_id is None) != (self.blobs_s3_secret_access_key is None):
            raise ValueError("blobs_s3_access_key_id and blobs_s3_secret_access_key belong together")
        return self

    @property
    def link_host(self) -> str:
        """The name that pods and gateways check the link's certificate for."""
        return self.link_name or f"{self.link_service}.{self.namespace}.svc"

    @property
    def link_address(self) -> str:
        """Where others dial this gateway."""
        return self.link_address_of(self.pod_ip)

    def link_address_of(self, ip: str) -> str:
        """Where the gateway with this address is dialled."""
        return tls_address(ip, self.link_port)

    @property
    def function_url(self) -> str:
        """Where function pods reach the Lambda API, without a slash at the end."""
        return (self.gateway_url or f"http://{self.service}.{self.namespace}.svc:{self.port}").rstrip("/")

    @property
    def served_hosts(self) -> tuple[str, ...]:
        """Names of the Lambda API's Service, from inside its namespace to the whole name, and what is configured."""
        name = f"{self.service}.{self.namespace}"
        return (*self.allowed_hosts, self.service, name, f"{name}.svc", f"{name}.svc.cluster.local")

    @property
    def namespace_selector(self) -> str:
        """Labels of the namespaces that are served; empty for all."""
        return f"kubernetes.io/metadata.name in ({','.join(self.watch_namespaces)})" if self.watch_namespaces else ""

    @property
    def known_runtimes(self) -> frozenset[str]:
        return frozenset(self.runtimes) | self.runtime_images.keys()


def load(**options: object) -> ClusterSettings:
    """Settings from the environment with ``options`` (those that are not None) on top. Raises SettingsError."""
    given = {name: value for name, value in options.items() if value is not None}
    return validated(ClusterSettings, service_endpoints() | given)
