"""Bodies of requests mean the same to a reader of JSON and to one of YAML."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kappa_crds.encoding import encode_body

texts = st.text(st.characters(codec="utf-8"))


@given(value=st.dictionaries(texts, texts | st.integers() | st.lists(texts), max_size=4))
def test_json_reads_what_was_written(value: object) -> None:
    assert json.loads(encode_body(value)) == value


@given(value=texts)
def test_yaml_reads_what_was_written(value: str) -> None:
    assert yaml.safe_load(encode_body({"a": value}).replace(b"\\/", b"/")) == {"a": value}


@pytest.mark.parametrize("character", ["\x7f", "\x85", "\x9f", "\u2028", "\ufeff", "\ufffe"])
def test_what_yaml_would_refuse_or_fold_away_is_escaped(character: str) -> None:
    assert encode_body({"a": character}) == f'{{"a":"\\u{ord(character):04x}"}}'.encode()


def test_everything_else_is_written_as_it_is() -> None:
    assert encode_body({"a": "tést 😀"}) == '{"a":"tést 😀"}'.encode()
