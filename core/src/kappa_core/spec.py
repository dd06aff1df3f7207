"""VersionSpec: everything a supervisor needs to run the environments of one function revision.

Made by the gateway (embedded) or the operator (cluster) from a resolved function version; immutable. A new revision means new
environments and the old ones drained.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from kappa_core.limits import BUFFERED_RESPONSE_BYTES, STREAMED_RESPONSE_BYTES

InitializationType = Literal["on-demand", "provisioned-concurrency", "snap-start"]
_PROVISIONED: Final = "provisioned-"
INIT_FAILURE: Final = "FUNCTION_ERROR_INIT_FAILURE"
"""How the reason begins for which a provisioned environment is gone whose init failed; AWS's StatusReason."""
RESERVED_VARIABLES: Final = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
"""Set by the platform alone: docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html, "Defined runtime environment variables"."""


def provisioned_id(environment_id: str) -> str:
    """The id of an environment of provisioned concurrency. It says so itself: whoever meets the environment, a gateway that has just
    started included, counts it in the same place, and the supervisor knows how its init is to end."""
    return _PROVISIONED + environment_id


def initialization_type(environment_id: str) -> InitializationType:
    """How the environment of this id came to be."""
    return "provisioned-concurrency" if environment_id.startswith(_PROVISIONED) else "on-demand"


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """A zip that a pod fetches before its first environment: the code of a version, or one of its layers."""

    url: str
    """Signed and short-lived, http or https; the digest comes over the link, so the way of the bytes need not be trusted."""
    sha256: str
    """Lower-case hex, of the zip."""
    size: int
    """Bytes of the zip."""


class VersionSpec(msgspec.Struct, frozen=True, kw_only=True):
    revision: str
    """``<function uid>.<version>.<configuration digest>``: names this spec; equal revisions are equal specs, but for the links of
    archives."""
    function_uid: str
    account: str
    region: str
    function_name: str
    version: str
    """Number or ``$LATEST``."""
    function_arn: str
    """Unqualified."""
    runtime: str
    handler: str
    memory_mb: int
    timeout: float
    """Seconds."""
    ephemeral_mb: int
    variables: dict[str, str] = {}
    """The customer's environment variables."""
    platform_variables: dict[str, str] = {}
    """Decided above the supervisor: credentials, region, AWS_ENDPOINT_URL*. The customer's win where AWS lets them."""
    task_root: str
    """Local directory with the unpacked code, read-only."""
    opt_root: str | None = None
    """Local directory with the merged layers, read-only; None without layers."""
    code: Archive | None = None
    """In the cluster: what a pod unpacks at ``task_root``. None where the code is there already."""
    layers: tuple[Archive, ...] = ()
    """In the cluster: what a pod unpacks at ``opt_root``, in this order; later ones win."""
    log_group: str
    log_format: Literal["Text", "JSON"] = "Text"
    application_log_level: str | None = None
    system_log_level: str | None = None
    tracing_mode: Literal["Active", "PassThrough"] = "PassThrough"
    init_seconds: float = 10.0
    response_bytes: int = BUFFERED_RESPONSE_BYTES
    streamed_response_bytes: int = STREAMED_RESPONSE_BYTES
    client: Literal["own", "official"] = "own"
    """Which runtime interface client the bootstrap is: Kappa's lean one, or AWS's awslambdaric / aws-lambda-ric."""
    command: tuple[str, ...] = ()
    """The resolved interpreter command of the runtime (``("/usr/bin/python3.12",)``); empty for provided runtimes, and in the
    cluster, where the image knows it."""
