"""What a pod's supervisor is told: by its manifest (who it is, where the gateways are) and by its image (which interpreter it has).

The variables of the manifest are a contract with the operator (docs/rfc/0003-kubernetes.md, 5). Those that name folders have the
values of a pod as defaults and exist for tests. It refuses to guess who the pod is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from kappa_runtime.pod.ahead import is_python

TASK_ROOT: Final = Path("/var/task")
VALUE_PREFIX: Final = "KAPPA_VALUE_"
"""Before the name of a variable that is the function's."""


class SettingsError(ValueError):
    """A variable is missing or makes no sense; the message is for the terminal."""


class PodSettings(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    namespace: str
    uid: str
    gateways: tuple[str, ...]
    """``dns:host:port`` or ``tls:host:port``."""
    link_name: str
    """In the gateways' certificate."""
    command: tuple[str, ...] = ()
    """The image's interpreter; empty in an image for provided runtimes."""
    forks: bool = False
    """Environments are forked from a zygote of that interpreter, which is booted ahead."""
    values: dict[str, str] = {}
    """Variables of the function whose values the kubelet has looked up in Secrets and ConfigMaps."""
    identity: Path = Path("/var/run/kappa")
    """Holds ``token`` and ``ca.crt``."""
    work: Path = Path("/var/kappa")
    """Writable, the supervisor's own."""
    task: Path = TASK_ROOT
    opt: Path = Path("/opt")
    code: Path | None = None
    """Holds ``task`` and ``opt``, where the code is written to and which are seen read-only at the two folders above; None where these
    can be written to themselves."""

    @property
    def task_written(self) -> Path:
        return self.task if self.code is None else self.code / "task"

    @property
    def opt_written(self) -> Path:
        return self.opt if self.code is None else self.code / "opt"

    @property
    def token(self) -> Path:
        return self.identity / "token"

    @property
    def authority(self) -> Path:
        return self.identity / "ca.crt"

    @property
    def own_machine(self) -> bool:
        """Whether functions see this filesystem as theirs; not so in a test."""
        return self.task == TASK_ROOT

    def supervisor_id(self) -> str:
        """A new one for each life of the container; begins with the pod's UID, which the gateways check."""
        return f"{self.uid}.{os.urandom(4).hex()}"


def from_environment(variables: Mapping[str, str]) -> PodSettings:
    """Raises SettingsError."""

    def needed(name: str) -> str:
        value = variables.get(name, "")
        if not value:
            raise SettingsError(f"{name} is not set: this program is the first process of a pod that Kappa's operator has made")
        return value

    def folder(name: str, default: str) -> Path:
        return Path(variables.get(name, default))

    interpreter = variables.get("KAPPA_RUNTIME_COMMAND", "")
    command = (interpreter,) if interpreter else ()
    return PodSettings(
        name=needed("KAPPA_POD_NAME"),
        namespace=needed("KAPPA_POD_NAMESPACE"),
        uid=needed("KAPPA_POD_UID"),
        gateways=tuple(address.strip() for address in needed("KAPPA_GATEWAYS").split(",")),
        link_name=needed("KAPPA_LINK_NAME"),
        command=command,
        forks=is_python(interpreter),
        values={name.removeprefix(VALUE_PREFIX): value for name, value in variables.items() if name.startswith(VALUE_PREFIX)},
        identity=folder("KAPPA_IDENTITY_DIR", "/var/run/kappa"),
        work=folder("KAPPA_WORK_DIR", "/var/kappa"),
        task=folder("KAPPA_TASK_DIR", str(TASK_ROOT)),
        opt=folder("KAPPA_OPT_DIR", "/opt"),
        code=Path(variables["KAPPA_CODE_DIR"]) if variables.get("KAPPA_CODE_DIR") else None,
    )
