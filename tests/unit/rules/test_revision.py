"""Revision ids follow what was recorded: another one for every write of a function, always the same one for a version."""

from __future__ import annotations

import uuid

import msgspec
import pytest

import made
from kappa_core.errors import PreconditionFailedException
from kappa_core.resources import Alias, Function, FunctionStatus, FunctionVersion, LayerVersion
from kappa_core.rules import states
from kappa_core.rules.revision import check_revision, revision_id


def test_a_revision_id_is_a_uuid_and_the_same_for_every_reader() -> None:
    function = made.function()
    assert str(uuid.UUID(revision_id(function))) == revision_id(function)
    assert revision_id(function) == revision_id(made.function())


def test_every_write_and_every_state_has_an_id_of_its_own() -> None:
    pending = made.function(status=FunctionStatus())
    active = msgspec.structs.replace(pending, status=states.settled(pending.configuration))
    written = msgspec.structs.replace(active, meta=made.meta(generation=2))
    another = msgspec.structs.replace(active, meta=made.meta("uid-2"))
    assert len({revision_id(one) for one in (pending, active, written, another)}) == 4


def test_a_version_becoming_active_keeps_its_id() -> None:
    pending = made.version(1, status=FunctionStatus())
    active = msgspec.structs.replace(
        pending, status=states.settled(None), meta=msgspec.structs.replace(pending.meta, generation=2)
    )
    assert revision_id(pending) == revision_id(active)


def test_every_update_of_an_alias_gives_another_id() -> None:
    alias = made.alias()
    assert revision_id(alias) != revision_id(msgspec.structs.replace(alias, meta=made.meta("alias-live", generation=2)))


def test_resources_of_different_kinds_never_share_an_id() -> None:
    shared = made.meta("same")
    made_of: list[Function | FunctionVersion | Alias | LayerVersion] = [
        made.function(meta=shared),
        made.version(meta=shared),
        made.alias(meta=shared),
        made.layer(meta=shared),
    ]
    assert len({revision_id(one) for one in made_of}) == 4


def test_only_the_current_id_passes_and_the_text_names_the_way_to_it() -> None:
    function = made.function()
    check_revision(function, None)
    check_revision(function, revision_id(function))
    with pytest.raises(PreconditionFailedException) as caught:
        check_revision(function, "old")
    assert caught.value.message == (
        "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest "
        "Revision Id"
    )
    with pytest.raises(PreconditionFailedException, match="Call the GetLayerPolicy API"):
        check_revision(made.layer(), "old")
