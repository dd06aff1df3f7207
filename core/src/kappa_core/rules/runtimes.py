"""Which runtime identifiers a function may be created with. What is installed to run them is another question (the settler's).

The lists are those of the service model; AWS refuses the deprecated ones by another sentence than the unknown ones.
"""

from __future__ import annotations

from typing import Final

from kappa_core.errors import InvalidParameterValueException

CREATABLE: Final = (
    "nodejs16.x", "nodejs18.x", "nodejs20.x", "nodejs22.x", "nodejs24.x", "nodejs26.x",
    "java8.al2", "java11", "java17", "java21", "java25", "java8.al2023", "java11.al2023", "java17.al2023",
    "python3.8", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13", "python3.14", "python3.15",
    "dotnet6", "dotnet8", "dotnet10",
    "ruby3.2", "ruby3.3", "ruby3.4", "ruby4.0",
    "provided", "provided.al2", "provided.al2023",
)  # fmt: skip
"""Recorded in November 2025 plus what the service model has added since; and ``provided``, which AWS has closed for its old Amazon
Linux only: an executable of one's own runs here as it does there."""

DEPRECATED: Final = (
    "nodejs", "nodejs4.3", "nodejs4.3-edge", "nodejs6.10", "nodejs8.10", "nodejs10.x", "nodejs12.x", "nodejs14.x",
    "java8",
    "python2.7", "python3.6", "python3.7",
    "dotnetcore1.0", "dotnetcore2.0", "dotnetcore2.1", "dotnetcore3.1",
    "go1.x",
    "ruby2.5", "ruby2.7",
)  # fmt: skip

SNAP_START: Final = (
    "java11", "java17", "java21", "java25", "java11.al2023", "java17.al2023",
    "python3.12", "python3.13", "python3.14", "python3.15",
    "dotnet8", "dotnet10",
)  # fmt: skip
"""docs.aws.amazon.com/lambda/latest/dg/snapstart.html"""


def check_runtime(runtime: str) -> None:
    """Raises InvalidParameterValueException for a runtime that no function can be created with any more, or ever."""
    if runtime in CREATABLE:
        return
    if runtime in DEPRECATED:
        raise InvalidParameterValueException(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        )
    raise InvalidParameterValueException(
        f"Value {runtime[:128]} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: "
        f"[{', '.join(CREATABLE)}] or be a valid ARN"
    )


def check_snap_start(runtime: str) -> None:
    """Raises InvalidParameterValueException where AWS offers no SnapStart for the runtime."""
    if runtime not in SNAP_START:
        raise InvalidParameterValueException(f"{runtime} is not supported for SnapStart enabled functions.")
