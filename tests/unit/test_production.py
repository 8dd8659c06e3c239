"""The production pointer: what it holds, who wins when two write it, and what it refuses."""

from __future__ import annotations

import json

import pytest

from moaa.errors import MoaaError
from moaa.registry import production
from moaa.registry.production import Production, ProductionEntry
from tests.support.memory_store import MemoryStore


def whole(store: MemoryStore, version: str) -> ProductionEntry:
    """A version with a manifest, and its entry."""
    uri = f"{store.root}/models/aligned/{version}"
    store.put(f"{uri}/manifest.json", b"{}")
    return ProductionEntry(version=version, uri=uri, why=f"for {version}", run="demo-1")


def test_nothing_is_in_production_at_first() -> None:
    found = production.read(MemoryStore(), "aligned")
    assert found == Production("aligned")
    assert (found.current, found.before) == (None, None)


def test_the_newest_entry_is_in_production_and_the_history_stays() -> None:
    store = MemoryStore()
    for version in ("v1", "v2", "v1"):
        production.move(store, "aligned", whole(store, version))
    found = production.read(store, "aligned")
    assert [each.version for each in found.history] == ["v1", "v2", "v1"]
    assert found.current
    assert (found.current.version, found.current.run) == ("v1", "demo-1")
    assert found.current.since.endswith("Z")
    assert found.before
    assert found.before.version == "v2"


def test_a_version_that_is_there_already_keeps_its_time_and_reason() -> None:
    store = MemoryStore()
    first = production.move(store, "aligned", whole(store, "v1"))
    entry = ProductionEntry(
        version="v1", uri=whole(store, "v1").uri, why="again", since="2030-01-01"
    )
    assert production.move(store, "aligned", entry) == first
    assert production.read(store, "aligned") == first


def test_a_version_that_is_not_whole_is_refused_and_nothing_is_written() -> None:
    store = MemoryStore()
    uri = f"{store.root}/models/aligned/v1"
    store.put(f"{uri}/model.safetensors", b"half")
    with pytest.raises(
        MoaaError, match=rf"{uri} is not a complete version: it has no manifest\.json"
    ):
        production.move(store, "aligned", ProductionEntry(version="v1", uri=uri, why=""))
    assert not store.exists(production.address(store, "aligned"))


@pytest.mark.parametrize("others", [[], ["v0"]])
def test_an_entry_that_another_writes_meanwhile_is_not_lost(others: list[str]) -> None:
    """Also when both write the first one."""
    store = MemoryStore()
    for version in others:
        production.move(store, "aligned", whole(store, version))
    mine = whole(store, "mine")
    raced: list[Production] = []

    def race(found: Production) -> None:
        if not raced:
            raced.append(found)
            production.move(store, "aligned", whole(store, "theirs"))

    made = production.move(store, "aligned", mine, race)
    assert [each.version for each in made.history] == ["mine", "theirs", *others]
    assert production.read(store, "aligned") == made


def test_what_the_caller_does_not_expect_is_not_replaced() -> None:
    store = MemoryStore()
    before = production.move(store, "aligned", whole(store, "v1"))

    def refuse(found: Production) -> None:
        raise MoaaError(f"{found.current}")

    with pytest.raises(MoaaError, match="v1"):
        production.move(store, "aligned", whole(store, "v2"), refuse)
    assert production.read(store, "aligned") == before


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"history": [{"uri": "s3://x"}]}'])
def test_an_object_of_somebody_else_is_named(text: bytes) -> None:
    store = MemoryStore()
    store.put(production.address(store, "aligned"), text)
    with pytest.raises(MoaaError, match="does not say which version is in production"):
        production.read(store, "aligned")


def test_fields_of_a_later_version_of_moaa_do_no_harm() -> None:
    store = MemoryStore()
    made = production.move(store, "aligned", whole(store, "v1"))
    uri = production.address(store, "aligned")
    given = json.loads(store.get(uri))
    given["history"][0]["colour"] = "blue"
    store.put(uri, json.dumps(given).encode())
    assert production.read(store, "aligned") == made
