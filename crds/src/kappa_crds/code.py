"""Where the code of a Function object comes from, and whether it has been taken in.

``spec.code`` names exactly one source. ``blob`` is what the API has stored already, so it *is* the code; every other source has to
be fetched, checked and stored by the settler, which records the archive in ``status.code`` together with the digest of the source
that it was made from. Until that digest is the one of the current ``spec.code``, the function has no code that could run.
Pure: nothing is fetched here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kappa_core.resources import Code, Sha256
from kappa_core.rules.configuration import NO_CODE

Object = Mapping[str, Any]

INLINE_CHARACTERS: Final = 262_144
"""256 Ki: what fits beside everything else into an object of 1.5 MiB even where each takes four bytes."""

_ES_MODULE: Final = re.compile(r"^\s*(?:export\s|import\s+[\w*{\"'])", re.MULTILINE)


class Inline(msgspec.Struct, frozen=True):
    """One source file in the object itself."""

    path: str
    """Inside the archive, from handler and runtime: ``app.handler`` on Python is ``app.py``."""
    text: str
    executable: bool = False
    """A ``bootstrap`` script."""

    @property
    def described(self) -> str:
        return "inline"


class ConfigMapCode(msgspec.Struct, frozen=True):
    """Files in a ConfigMap of the Function's namespace."""

    name: str
    key: str | None
    """One entry: a zip archive in ``binaryData``, or a single file. None: every entry is a file."""

    @property
    def described(self) -> str:
        return f"configmap:{self.name}" if self.key is None else f"configmap:{self.name}/{self.key}"


class S3Code(msgspec.Struct, frozen=True):
    bucket: str
    key: str
    version: str | None

    @property
    def described(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


class HttpsCode(msgspec.Struct, frozen=True):
    url: str
    sha256: Sha256
    """What the archive must be; anything else is refused."""

    @property
    def described(self) -> str:
        return self.url


CodeSource = Inline | ConfigMapCode | S3Code | HttpsCode
"""What has to be taken in. ``described`` becomes the ``source`` of the Code that is made of it."""


def code_source(spec: Object) -> CodeSource | None:
    """The source in a Function's spec or, as ``content``, a Layer's; None for a blob and for what the schema would have refused."""
    code = spec.get("code") or spec.get("content") or {}
    if "inline" in code:
        runtime, handler = spec.get("runtime") or "", spec.get("handler") or ""
        path = inline_path(code["inline"], runtime=runtime, handler=handler)
        return Inline(path=path, text=code["inline"], executable=runtime.startswith("provided"))
    if "configMap" in code:
        return ConfigMapCode(name=code["configMap"]["name"], key=code["configMap"].get("key"))
    if "s3Bucket" in code:
        return S3Code(bucket=code["s3Bucket"], key=code.get("s3Key", ""), version=code.get("s3ObjectVersion"))
    if "https" in code:
        return HttpsCode(url=code["https"]["url"], sha256=Sha256(code["https"]["sha256"]))
    return None


def code_digest(spec: Object) -> str:
    """32 hex digits that change exactly when another archive would have to be made of ``spec.code``."""
    code = spec.get("code") or spec.get("content") or {}
    about = {"code": code}
    if "inline" in code:  # the file's name comes from these
        about |= {"runtime": spec.get("runtime"), "handler": spec.get("handler")}
    return hashlib.sha256(msgspec.json.encode(about, order="sorted")).hexdigest()[:32]


def code_of(obj: Object) -> Code:
    """The archive that an object's spec stands for; NO_CODE while that is still to be taken in."""
    spec = obj.get("spec") or {}
    code = spec.get("code") or spec.get("content") or {}
    if "blob" in code:
        return _archive(code["blob"], source_kms_key_arn=code.get("sourceKMSKeyARN"))
    taken = (obj.get("status") or {}).get("code")
    if not taken or taken.get("of") != code_digest(spec):
        return NO_CODE
    return _archive(taken, source_kms_key_arn=None)


def code_due(obj: Object) -> CodeSource | None:
    """What the settler has to take in for this object before its code can be settled; None where there is nothing to do.

    A ConfigMap each time: it changes without a word in the object. Equal files make an equal archive, so nothing comes of it then.
    """
    source = code_source(obj.get("spec") or {})
    return source if source is not None and (isinstance(source, ConfigMapCode) or code_of(obj) == NO_CODE) else None


def is_made_of(code: Code, spec: Object) -> bool:
    """Whether an archive is what the settler made of ``spec.code``, and not one that somebody uploaded in its place."""
    source = code_source(spec)
    return source is not None and code != NO_CODE and code.source == source.described


def code_fields(code: Code) -> dict[str, Any]:
    """``spec.code`` for an archive that is stored."""
    fields: dict[str, Any] = {"blob": archive_fields(code)}
    if code.source_kms_key_arn is not None:
        fields["sourceKMSKeyARN"] = code.source_kms_key_arn
    return fields


def archive_fields(code: Code) -> dict[str, Any]:
    return {"sha256": code.sha256, "size": code.size, "unzippedSize": code.unzipped_size, "source": code.source}


def _archive(fields: Object, *, source_kms_key_arn: str | None) -> Code:
    return Code(
        sha256=Sha256(fields["sha256"]),
        size=fields["size"],
        unzipped_size=fields["unzippedSize"],
        source=fields.get("source", "upload"),
        source_kms_key_arn=source_kms_key_arn,
    )


def inline_path(text: str, *, runtime: str, handler: str) -> str:
    """The file that inline source has to be for its handler to be found.

    Node.js tells modules from scripts by the suffix: source with ``import`` or ``export`` statements becomes ``.mjs``.
    """
    if runtime.startswith("provided"):
        return "bootstrap"
    folder, _, last = handler.rpartition("/")
    if runtime.startswith("python"):  # the handler is the part behind the last dot, the module everything before it
        module = last.rpartition(".")[0] or last
        name = f"{module.replace('.', '/')}.py"
    elif runtime.startswith("ruby"):
        name = f"{last.partition('.')[0]}.rb"
    else:  # Node.js: the module ends at the first dot
        name = f"{last.partition('.')[0]}.{'mjs' if _ES_MODULE.search(text) else 'js'}"
    return f"{folder}/{name}" if folder else name
