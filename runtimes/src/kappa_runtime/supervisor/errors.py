"""Errors of the supervisor.

    SupervisorError
    ├── SandboxUnavailable    namespaces were demanded and this machine refuses them
    ├── SandboxConflict       two places of a function's filesystem contradict each other
    ├── SpawnFailed           no process could be made (descriptors, memory, process table)
    ├── ZygoteLost            the fork server ended before it answered
    ├── CodeUnavailable       a pod's code or a layer is not to be had, or is not what it should be
    └── EnvironmentClosed     an invocation reached an environment that has been shut down; nothing has run

What a *function* does wrong is no exception here: it becomes a Result.
"""

from __future__ import annotations


class SupervisorError(Exception):
    """Base of all errors of this package."""


class SandboxUnavailable(SupervisorError):
    """Sandbox mode ``namespaces`` was asked for and does not work here; the text says which step failed."""


class SandboxConflict(SupervisorError):
    """A path would have to be two things at once."""


class SpawnFailed(SupervisorError):
    """The operating system refused a process or its pipes."""


class ZygoteLost(SupervisorError):
    """The fork server ended; a fresh one, or a spawned interpreter, has to serve."""


class CodeUnavailable(SupervisorError):
    """The archive of the code or of a layer cannot be fetched by its link, or is another one."""


class EnvironmentClosed(SupervisorError):
    """The environment no longer accepts invocations."""
