"""Layer objects: what people write of a layer, and which LayerVersion has become of it.

The core knows LayerVersions alone. A Layer says what the *next* version is to be; whenever it says something new, the settler takes
its content in, publishes a LayerVersion as PublishLayerVersion does, and records here which one. A Layer that goes takes no version
with it: functions use them. Pure, as everything about objects here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from kappa_core.names import layer_arn
from kappa_core.resources import AccountId, Code, LayerVersion, Region
from kappa_core.rules.publish import code_sha256
from kappa_crds import labels
from kappa_crds.code import CodeSource, code_source
from kappa_crds.configuration import Fields


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A Layer object, read."""

    account: AccountId
    region: Region
    name: str
    source: CodeSource | None
    """None for a content that the schema would have refused."""
    description: str
    license_info: str | None
    compatible_runtimes: tuple[str, ...]
    compatible_architectures: tuple[str, ...]
    digest: str
    """32 hex digits that change exactly when the object asks for another version."""

    def version(self, number: int, code: Code) -> LayerVersion:
        """The layer version that it becomes, once its content is stored and a number allocated."""
        return LayerVersion(
            account=self.account,
            region=self.region,
            name=self.name,
            version=number,
            code=code,
            description=self.description,
            license_info=self.license_info,
            compatible_runtimes=self.compatible_runtimes,
            compatible_architectures=self.compatible_architectures,
        )


def layer_of(obj: Mapping[str, Any], *, account: str, default_region: str) -> Layer:
    """The layer that a Layer object asks for, in the account of its namespace."""
    spec, metadata = obj["spec"], obj["metadata"]
    said = {name: value for name, value in spec.items() if name != "layerName"}
    return Layer(
        account=AccountId(account),
        region=Region((metadata.get("labels") or {}).get(labels.REGION) or default_region),
        name=spec.get("layerName") or metadata["name"],
        source=code_source(spec),
        description=spec.get("description", ""),
        license_info=spec.get("licenseInfo"),
        compatible_runtimes=tuple(spec.get("compatibleRuntimes") or ()),
        compatible_architectures=tuple(spec.get("compatibleArchitectures") or ()),
        digest=hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:32],
    )


def layer_due(obj: Mapping[str, Any], layer: Layer) -> bool:
    """Whether a version has still to be published for what the object says now."""
    return bool((obj.get("status") or {}).get("contentDigest") != layer.digest)


def layer_status(obj: Mapping[str, Any], layer: Layer, published: LayerVersion) -> Fields:
    """The status to write once the version is stored; conditions are the caller's."""
    return {
        "observedGeneration": obj["metadata"].get("generation", 1),
        "version": published.version,
        "layerVersionARN": layer_arn(published.account, published.region, published.name, published.version),
        "codeSHA256": code_sha256(published.code.sha256),
        "codeSize": published.code.size,
        "contentDigest": layer.digest,
    }
