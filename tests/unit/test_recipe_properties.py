"""Whatever a recipe holds survives its way through YAML, addresses and `--set`."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moaa.recipe import addresses
from moaa.recipe import read as yaml
from moaa.recipe.load import load_text

# YAML cannot hold half a surrogate pair, nor control characters unless they are escaped.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
STEPS = st.integers(0, 99) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters='"'), min_size=1, max_size=12
)
ADDRESSES = st.lists(STEPS, min_size=1, max_size=6).map(tuple)

SMALL = """\
name: small
store: {root: s3://bucket/small}
models: {m: {source: some/model}}
target: m
prompts: {sft: [{source: a}], preference: [{source: b}], evaluation: [{source: c}]}
generate: {mixture: {proposers: [{model: m}], aggregator: {model: m}}}
label: {judge: {proposers: [{model: m}], aggregator: {model: m}}}
"""


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_what_is_dumped_is_what_is_read(data: dict[str, Any]) -> None:
    errors: list[str] = []
    found = yaml.plain(yaml.read(yaml.dump(data), "recipe.yaml", errors))
    assert errors == []
    assert found == data
    assert json.dumps(found) == json.dumps(data), "1, 1.0 and true are equal, but not the same"


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=5))
def test_what_is_dumped_on_one_line_is_what_is_read(data: dict[str, Any]) -> None:
    text = yaml.dump(data, flow=True)
    errors: list[str] = []
    assert yaml.plain(yaml.read(text, "recipe.yaml", errors)) == data
    assert errors == []


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_dumped_text_has_no_character_that_kubeflow_refuses(data: dict[str, Any]) -> None:
    assert all(ord(character) <= 0xFFFF for character in yaml.dump(data))


@given(ADDRESSES)
def test_an_address_is_read_as_it_is_written(address: tuple[str | int, ...]) -> None:
    assert addresses.parse_path(addresses.dotted(address)) == address


@given(st.text(max_size=20))
def test_a_text_is_an_address_or_is_refused(text: str) -> None:
    address = addresses.parse_path(text)
    if address is not None:
        assert addresses.parse_path(addresses.dotted(address)) == address


@given(VALUES)
def test_every_value_of_a_tree_is_found_at_its_address(data: Any) -> None:
    given = yaml.read(yaml.dump({"x": data}), "t", [])
    for address, item in yaml.places(given):
        node: Any = yaml.plain(given)
        for step in address:
            node = node[step]
        assert json.dumps(node) == json.dumps(yaml.plain(item))


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    errors: list[str] = []
    found = yaml.read(text, "recipe.yaml", errors)
    assert isinstance(found.value, dict)


@given(TEXTS, st.floats(1e-9, 1e9).filter(math.isfinite))
def test_a_value_given_by_set_reaches_the_resolved_text(text: str, beta: float) -> None:
    sets = [f"label.judge.aggregator.system={json.dumps('x' + text)}", f"dpo.beta={beta!r}"]
    loaded = load_text(SMALL, sets)
    assert loaded.recipe.label.judge.aggregator.system == "x" + text
    assert loaded.recipe.dpo.beta == beta
    assert load_text(loaded.text).recipe == loaded.recipe
