"""The environment variables of a function: every one that AWS sets, and nothing of the machine that Kappa runs on.

Pure: a VersionSpec and the places of an environment in, a dict out. The base is empty, never the supervisor's own environment, so
that neither the developer's credentials nor proxies, HOME or HOSTNAME reach a handler. Later wins: Lambda's own, what the gateway
decided (credentials, endpoints), the customer's; but names that AWS reserves stay Lambda's.

Names and values: docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html, checked against recorded environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from kappa_core.spec import RESERVED_VARIABLES, InitializationType, VersionSpec

PRIVATE_PREFIX: Final = "KAPPA_"
"""Platform variables with this prefix speak to the supervisor and never reach the function."""


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where an environment finds its files: AWS's own paths inside a sandbox, stand-ins elsewhere."""

    task: str = "/var/task"
    opt: str = "/opt"
    runtime: str = "/var/runtime"
    language: str = "/var/lang"
    """Holds ``bin`` with the interpreter."""
    temporary: str = "/tmp"  # noqa: S108 - the path that AWS documents, private to the environment
    stand_in: bool = False


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What is an environment's own."""

    runtime_api: str
    """``host:port``."""
    log_stream: str
    initialization_type: InitializationType


def base(spec: VersionSpec, places: Places, identity: Identity) -> dict[str, str]:
    """What Lambda sets for every runtime."""
    variables = {
        "AWS_REGION": spec.region,
        "AWS_DEFAULT_REGION": spec.region,
        "AWS_LAMBDA_FUNCTION_NAME": spec.function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": spec.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": identity.initialization_type,
        "AWS_LAMBDA_LOG_GROUP_NAME": spec.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": identity.log_stream,
        "AWS_LAMBDA_RUNTIME_API": identity.runtime_api,
        # AWS's address is link-local to its microVM. On a laptop datagrams to it would leave for the default gateway.
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:2000",
        "_AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1",
        "_AWS_XRAY_DAEMON_PORT": "2000",
        "LAMBDA_RUNTIME_DIR": places.runtime,
        "LAMBDA_TASK_ROOT": places.task,
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PWD": places.task,
        "SHLVL": "0",
        "PATH": f"{places.language}/bin:/usr/local/bin:/usr/bin/:/bin:{places.opt}/bin",
        "LD_LIBRARY_PATH": ":".join(
            (
                f"{places.language}/lib:/lib64:/usr/lib64:{places.runtime}:{places.runtime}/lib",
                f"{places.task}:{places.task}/lib:{places.opt}/lib",
            )
        ),
        "_HANDLER": spec.handler,
    }
    if not spec.runtime.startswith("provided"):
        variables["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{spec.runtime}"
    if spec.log_format == "JSON":
        variables["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
        variables["AWS_LAMBDA_LOG_LEVEL"] = spec.application_log_level or "INFO"
    if places.stand_in:
        variables["TMPDIR"] = places.temporary
    return variables


def language(spec: VersionSpec, places: Places) -> dict[str, str]:
    """What the managed runtime of a language adds."""
    if spec.runtime.startswith("python"):
        return {"LC_CTYPE": "C.UTF-8", "PYTHONPATH": places.runtime}
    if spec.runtime.startswith("nodejs"):
        major = spec.runtime.removeprefix("nodejs").partition(".")[0]
        path = (
            f"{places.opt}/nodejs/node{major}/node_modules:{places.opt}/nodejs/node_modules:"
            f"{places.runtime}/node_modules:{places.runtime}:{places.task}"
        )
        return {"NODE_PATH": path}
    return {}


def variables(spec: VersionSpec, places: Places, identity: Identity, *, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """All of them. ``extra`` is the bootstrap's own and goes last."""
    found = base(spec, places, identity)
    found |= language(spec, places)
    found |= {name: value for name, value in spec.platform_variables.items() if not name.startswith(PRIVATE_PREFIX)}
    found |= {name: value for name, value in spec.variables.items() if name not in RESERVED_VARIABLES}
    if extra:
        found |= extra
    return found
