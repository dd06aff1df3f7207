#!/usr/bin/env python3
"""Writes docs/settings.md from the settings classes, or with `--check` refuses a page that no longer says the same.

The classes are the only place where a setting is described; the page is what people read. Part of `make lint` and `make docs`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path, PurePath
from typing import Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from kappa_gateway.cli.main import dev
from kappa_gateway.kubernetes.settings import ClusterSettings
from kappa_gateway.settings import GatewaySettings, Settings
from kappa_operator.settings import Settings as OperatorSettings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"

HEAD = """\
# Settings

<!-- Written by `make docs` from the settings classes; change the descriptions there. -->

Every setting of `kappa dev` is an environment variable. Those with an option can be given on the command line as well, which wins.
A wrong value is one line at start, not a surprise later. Lists are separated by commas, switches are `true` or `false`.

| variable | option | default | what it does |
|---|---|---|---|
"""

CLUSTER = """
## On Kubernetes

The chart sets these from its values ([install](guide/kubernetes/install.md)); whoever runs the processes otherwise sets them himself.

### `kappa gateway`

"""

OPERATOR = """
### `kappa operator`

"""

SHORT_TABLE = """\
| variable | default | what it does |
|---|---|---|
"""

ELSEWHERE = frozenset({"pod_name"})
"""Settings whose default is this machine's name: not to be written into a page."""


def default_of(field: FieldInfo) -> str:
    """How the page shows a default."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}, [], ""):
        return "–"
    if isinstance(value, dict):
        return f"`{json.dumps(value)}`"
    if isinstance(value, SecretStr):
        return f"`{value.get_secret_value()}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        value = ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value.as_posix() if isinstance(value, PurePath) else value}`"


def choices_of(field: FieldInfo) -> str:
    """The values of a setting that takes one of a few words."""
    annotation = field.annotation
    if get_origin(annotation) is Union:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is not Literal:
        return ""
    return " One of " + ", ".join(f"`{value}`" for value in get_args(annotation)) + "."


def page() -> str:
    """The whole page."""
    options = {parameter.name: parameter.opts[0] for parameter in dev.params}
    rows = []
    for name, field in fields_of(Settings):
        variable = "`KAPPA_ENDPOINT_URL_<SERVICE>`" if name == "endpoint_urls" else f"`KAPPA_{name.upper()}`"
        option = f"`{options[name]}`" if name in options else "–"
        described = (field.description or "").replace("|", "\\|") + choices_of(field)
        rows.append(f"| {variable} | {option} | {default_of(field)} | {described} |\n")
    return HEAD + "".join(rows) + CLUSTER + short_table(ClusterSettings) + OPERATOR + short_table(OperatorSettings)


def fields_of(settings: type[BaseSettings]) -> list[tuple[str, FieldInfo]]:
    """A class's own settings before those that all gateways have."""
    return sorted(settings.model_fields.items(), key=lambda each: each[0] in GatewaySettings.model_fields)


def short_table(settings: type[BaseSettings]) -> str:
    """Settings that have no option."""
    rows = []
    for name, field in fields_of(settings):
        variable = "`KAPPA_ENDPOINT_URL_<SERVICE>`" if name == "endpoint_urls" else f"`KAPPA_{name.upper()}`"
        default = "the machine's name" if name in ELSEWHERE else default_of(field)
        described = (field.description or "").replace("|", "\\|") + choices_of(field)
        rows.append(f"| {variable} | {default} | {described} |\n")
    return SHORT_TABLE + "".join(rows)


def main() -> int:
    """Write the page, or compare."""
    if sys.argv[1:] == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print("docs/settings.md does not say what kappa_gateway.settings says: run make docs", file=sys.stderr)
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
