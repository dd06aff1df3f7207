"""Applying the definitions: waits until they are served, gives up with a reason, and leaves a later release's alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import yaml

from kappa_crds.api import NotFound
from kappa_crds.apply import NotEstablished, apply_crds
from kappa_crds.definitions import EDITION, definitions, edition, manifest
from virtual_time import virtual

Object = dict[str, Any]


class _Cluster:
    """Serves a definition on the second look at it; ``conditions`` says something else instead."""

    def __init__(self, *, conditions: list[Object] | None = None, there: Object | None = None) -> None:
        self.definitions: dict[str, Object] = {} if there is None else {there["metadata"]["name"]: there}
        self.conditions = conditions
        self.applied: list[tuple[str, str, bool]] = []

    async def get(self, path: str, /) -> Object:
        name = path.rpartition("/")[2]
        if name not in self.definitions:
            raise NotFound(name)
        conditions = [{"type": "Established", "status": "True"}] if self.conditions is None else self.conditions
        return {**self.definitions[name], "status": {"conditions": conditions}}

    async def apply(self, path: str, body: Object, /, *, field_manager: str, force: bool = False) -> Object:
        self.applied.append((path.rpartition("/")[2], field_manager, force))
        self.definitions[path.rpartition("/")[2]] = body
        return body


@virtual
async def test_every_definition_is_applied_and_awaited() -> None:
    cluster, said = _Cluster(), list[str]()
    await apply_crds(cluster, say=said.append)
    names = [one["metadata"]["name"] for one in definitions()]
    assert [name for name, manager, force in cluster.applied if manager == "kappa-crds" and force] == names
    assert said == [f"{name} applied" for name in names]


@virtual
async def test_a_definition_that_is_never_served_ends_in_an_error_that_names_it() -> None:
    cluster = _Cluster(conditions=[{"type": "Established", "status": "False", "message": "installing"}])
    with pytest.raises(NotEstablished, match=r"aliases\.lambda\.kappa\.dev is not served: installing"):
        await apply_crds(cluster, seconds=5, clock=asyncio.get_running_loop().time)
    assert asyncio.get_running_loop().time() >= 5


@virtual
async def test_a_name_that_belongs_to_another_definition_is_not_waited_for() -> None:
    cluster = _Cluster(conditions=[{"type": "NamesAccepted", "status": "False", "message": '"fn" is already in use'}])
    with pytest.raises(NotEstablished, match='"fn" is already in use'):
        await apply_crds(cluster, clock=asyncio.get_running_loop().time)
    assert asyncio.get_running_loop().time() < 1


@virtual
async def test_definitions_of_a_later_release_stay_as_they_are() -> None:
    later = definitions()[0]
    later["metadata"]["annotations"][EDITION] = str(edition(later) + 1)
    cluster, said = _Cluster(there=later), list[str]()
    await apply_crds(cluster, say=said.append)
    assert later["metadata"]["name"] not in [name for name, _, _ in cluster.applied]
    assert "stays as it is" in said[0]


def test_the_printed_manifest_is_the_same_without_anchors() -> None:
    text = manifest()
    assert list(yaml.safe_load_all(text)) == list(definitions())
    assert "&id" not in text
    assert "<<" not in text
