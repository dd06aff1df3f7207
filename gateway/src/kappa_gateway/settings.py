"""All settings of a gateway in one place: read once at start, from ``KAPPA_*`` variables and the command line (which wins).

Each field documents its unit and default. Nothing else in the gateway reads the process environment. Settings are checked here,
so that a wrong value is one clear line at start and not a surprise at the first request.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kappa_core import limits
from kappa_core.link.policy import Policy, queue_or_scale, start_at_once

_ENDPOINT_PREFIX = "KAPPA_ENDPOINT_URL_"
S = TypeVar("S", bound=BaseSettings)


class SettingsError(Exception):
    """A setting is wrong; the message is one line for the terminal."""


class GatewaySettings(BaseSettings):
    """What every gateway is told, on a laptop and in a cluster."""

    model_config = SettingsConfigDict(env_prefix="KAPPA_", extra="ignore", validate_default=True)

    # -- other AWS services -----------------------------------------------------------------------------------------
    endpoint_url: str | None = Field(
        None, description="Where other AWS services are (one default for all); functions get it as AWS_ENDPOINT_URL."
    )
    endpoint_urls: dict[str, str] = Field(
        default_factory=dict,
        description="The same per service, from KAPPA_ENDPOINT_URL_<SERVICE>, such as KAPPA_ENDPOINT_URL_S3.",
    )
    s3_access_key_id: str = Field("test", description="Key with which Kappa itself reads code from S3.")
    s3_secret_access_key: SecretStr = Field(SecretStr("test"), description="See s3_access_key_id.")

    # -- running functions ------------------------------------------------------------------------------------------
    idle_seconds: float = Field(300.0, gt=0, description="Seconds after which an idle environment is ended.")
    capacity_wait_seconds: float = Field(30.0, gt=0, description="Seconds an invocation may wait for an environment; then 503.")
    queue_or_scale: bool = Field(
        True,
        description="Let an invocation wait for an environment that will serve it sooner than a new one could; "
        "false starts one for each, as AWS does.",
    )
    account_concurrency: int = Field(
        limits.ACCOUNT_CONCURRENCY, ge=1, description="Concurrent executions of an account and region."
    )
    timeout_max: int = Field(limits.TIMEOUT_MAX, ge=1, description="Longest function timeout that is accepted, in seconds.")
    strict_states: bool = Field(
        False,
        description="Answer AWS's 409 while a function is Pending or being updated (on a laptop that then takes half a second); "
        "otherwise such calls wait for it.",
    )

    # -- asynchronous invocations -----------------------------------------------------------------------------------
    async_retry_delays: Annotated[tuple[float, ...], NoDecode] = Field(
        (60.0, 120.0), description="Seconds before the first and the second repetition after a function error."
    )
    async_throttle_delays: Annotated[tuple[float, ...], NoDecode] = Field(
        (1.0, 300.0),
        description="Shortest and longest delay in seconds after a throttle or an error of the platform; it doubles.",
    )
    async_delivery_delays: Annotated[tuple[float, ...], NoDecode] = Field(
        (1.0, 5.0, 30.0, 120.0, 600.0),
        description="Seconds between the attempts to reach a destination or dead-letter queue; after the last it is given up.",
    )
    async_queue_bytes: int = Field(
        4 * 1024**3, ge=1024 * 1024, description="Bytes of events that may wait; one function alone gets half of it."
    )
    destination_access_key_id: str = Field(
        "test", description="Key with which Kappa itself sends to destinations and dead-letter queues."
    )
    destination_secret_access_key: SecretStr = Field(SecretStr("test"), description="See destination_access_key_id.")

    # -- looking at it ----------------------------------------------------------------------------------------------
    access_log: bool = Field(False, description="One JSON line per request on standard output.")

    @field_validator("async_retry_delays", "async_throttle_delays", "async_delivery_delays", mode="before")
    @classmethod
    def _split_delays(cls, value: object) -> object:
        return split(value)

    @field_validator("async_retry_delays", "async_throttle_delays", "async_delivery_delays")
    @classmethod
    def _not_negative(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= seconds < 1e9 for seconds in value):
            raise ValueError("delays are numbers of seconds, separated by commas")
        return value

    @field_validator("async_throttle_delays")
    @classmethod
    def _two(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) != 2 or value[0] > value[1]:
            raise ValueError("give the shortest and the longest delay, such as 1,300")
        return value

    @property
    def scaling_policy(self) -> Policy:
        """Whether an environment is started for each who waits."""
        return queue_or_scale if self.queue_or_scale else start_at_once

    @property
    def limits(self) -> limits.Limits:
        """The policy part of the limits."""
        return limits.Limits(
            timeout_max=self.timeout_max,
            account_concurrency=self.account_concurrency,
            capacity_wait_seconds=self.capacity_wait_seconds,
        )


class Settings(GatewaySettings):
    """Settings of ``kappa dev``. The variable of a field is its name in capitals behind ``KAPPA_``."""

    # -- where it listens ------------------------------------------------------------------------------------------
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(9000, ge=0, le=65535, description="TCP port of the Lambda API; 0 takes a free one.")
    data_dir: Path = Field(Path(".kappa"), description="Everything Kappa keeps: functions, code, logs.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names (comma separated) that requests may name besides loopback ones and the address listened on; "
        "a web page under another name is refused.",
    )

    # -- who may call ----------------------------------------------------------------------------------------------
    access_key_id: str | None = Field(None, description="With secret_access_key: every request must be signed with this key.")
    secret_access_key: SecretStr | None = Field(None, description="See access_key_id.")
    no_auth: bool = Field(
        False, description="Allow an address other than loopback without keys. Anyone who reaches it runs code."
    )
    account: str = Field("000000000000", description="Account id where the access key id of a request is not twelve digits.")
    region: str = Field("us-east-1", description="Region where a request is not signed.")

    # -- other AWS services ----------------------------------------------------------------------------------------
    pass_aws_credentials: bool = Field(
        False,
        description="Give functions the AWS_* credentials of the environment Kappa was started in, instead of session keys.",
    )

    # -- running functions -----------------------------------------------------------------------------------------
    nearest_runtime: bool = Field(False, description="Run a function whose runtime version is not installed on the nearest one.")
    sandbox: Literal["auto", "namespaces", "plain"] = Field(
        "auto", description="Give functions /var/task, /opt and a sized /tmp of their own through namespaces, where they work."
    )

    # -- asynchronous invocations ----------------------------------------------------------------------------------
    async_concurrency: int = Field(
        100, ge=1, description="Asynchronous events in hand at once; one function alone gets half of it."
    )

    # -- several gateways on one machine ---------------------------------------------------------------------------
    link: str | None = Field(
        None,
        description="unix:/path or tcp:host:port where environments and other gateways dial this one (a socket of its own).",
    )
    peers: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Links of the other gateways that share the data directory."
    )
    scaler: str | None = Field(None, description="Link of the gateway that starts environments, where it is not this one.")

    # -- looking at it ---------------------------------------------------------------------------------------------
    log_bytes: int = Field(256 * 1024 * 1024, ge=1024 * 1024, description="Bytes of function logs that are kept; the oldest go.")

    @field_validator("allowed_hosts", "peers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split(value)

    @field_validator("account")
    @classmethod
    def _twelve_digits(cls, value: str) -> str:
        if not re.fullmatch(r"\d{12}", value):
            raise ValueError("an account id is twelve digits")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together")
        if not self.no_auth and self.access_key_id is None and not is_loopback(self.host):
            raise ValueError(
                f"listening on {self.host} lets others run code on this machine: set KAPPA_ACCESS_KEY_ID and "
                "KAPPA_SECRET_ACCESS_KEY, or say --no-auth"
            )
        return self


def split(value: object) -> object:
    """The parts of a variable that holds several, separated by commas; what is no text is left to its type."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. A name other than localhost counts as reachable by others."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load(**options: object) -> Settings:
    """Settings from the environment with ``options`` (those that are not None) on top. Raises SettingsError."""
    given = {name: value for name, value in options.items() if value is not None}
    return validated(Settings, service_endpoints() | given)


def service_endpoints() -> dict[str, object]:
    """The ``endpoint_urls`` that the environment has, if any: their variables are named by the service."""
    services = {
        name.removeprefix(_ENDPOINT_PREFIX).lower(): value
        for name, value in os.environ.items()
        if name.startswith(_ENDPOINT_PREFIX)
    }
    return {"endpoint_urls": services} if services else {}


def validated(kind: type[S], given: Mapping[str, object]) -> S:
    """The settings of a process. Raises SettingsError, which names the first wrong one by its variable."""
    try:
        return kind(**given)  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        text = str(first["msg"]).removeprefix("Value error, ")
        raise SettingsError(f"KAPPA_{where.upper()}: {text}" if where else text) from None
