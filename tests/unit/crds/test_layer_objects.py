"""Layer objects: when a version is due, what it is made of, and what is recorded."""

from __future__ import annotations

from typing import Any

import made
from kappa_crds import labels
from kappa_crds.code import ConfigMapCode
from kappa_crds.definitions import definitions
from kappa_crds.layers import Layer, layer_due, layer_of, layer_status
from served_objects import edited, served
from structural_schema import refusals, root_schema


def _object(**spec: Any) -> dict[str, Any]:
    return served(
        {
            "apiVersion": "lambda.kappa.dev/v1alpha1",
            "kind": "Layer",
            "metadata": {"name": "tools"},
            "spec": {"content": {"configMap": {"name": "files"}}, **spec},
        }
    )


def _layer(obj: dict[str, Any]) -> Layer:
    return layer_of(obj, account=made.ACCOUNT, default_region="eu-central-1")


def _published(obj: dict[str, Any]) -> dict[str, Any]:
    layer = _layer(obj)
    return {**obj, "status": layer_status(obj, layer, layer.version(3, made.code()))}


def test_a_layer_becomes_a_version_with_everything_that_it_says() -> None:
    layer = _layer(
        _object(
            layerName="My_Tools",
            description="Tools",
            licenseInfo="MIT",
            compatibleRuntimes=["python3.12"],
            compatibleArchitectures=["arm64"],
        )
    )
    assert layer.source == ConfigMapCode(name="files", key=None)
    assert layer.version(3, made.code()) == made.layer(
        3,
        name="My_Tools",
        code=made.code(),
        description="Tools",
        license_info="MIT",
        compatible_runtimes=("python3.12",),
        compatible_architectures=("arm64",),
        meta=layer.version(3, made.code()).meta,
    )


def test_name_and_region_are_the_objects_unless_it_says_others() -> None:
    obj = _object()
    assert (_layer(obj).name, _layer(obj).region) == ("tools", "eu-central-1")
    obj["metadata"]["labels"] = {labels.REGION: "us-east-1"}
    assert _layer(obj).region == "us-east-1"


def test_a_version_is_due_until_it_is_recorded_and_again_for_anything_new() -> None:
    obj = _object()
    assert layer_due(obj, _layer(obj))
    done = _published(obj)
    assert not layer_due(done, _layer(done))
    for change in ({"description": "other"}, {"content": {"configMap": {"name": "others"}}}, {"compatibleRuntimes": ["ruby3.4"]}):
        changed = edited(done, **change)
        assert layer_due(changed, _layer(changed))


def test_spelling_the_layers_own_name_out_publishes_nothing() -> None:
    done = edited(_published(_object()), layerName="tools")
    assert not layer_due(done, _layer(done))


def test_what_is_recorded_passes_the_schema() -> None:
    (definition,) = [one for one in definitions() if one["spec"]["names"]["kind"] == "Layer"]
    done = _published(_object())
    assert done["status"]["layerVersionARN"] == f"arn:aws:lambda:eu-central-1:{made.ACCOUNT}:layer:tools:3"
    assert list(refusals({"spec": done["spec"], "status": done["status"]}, root_schema(definition))) == []
