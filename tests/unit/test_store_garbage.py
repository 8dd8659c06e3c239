"""Whatever lies in the bucket in place of moaa's own JSON is an error with its address, or left
out: no traceback."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from moaa import records
from moaa.artifacts import Artifact
from moaa.errors import ArtifactError, MoaaError
from moaa.gateway.slots import pointed
from moaa.journal.segments import Segments
from moaa.journal.usage import Usage
from moaa.ledger import Ledger
from moaa.registry import canary, production
from moaa.retrain import progress
from moaa.store.bytes import object_of
from tests.support.memory_store import MemoryStore
from tests.support.records import record

GARBAGE = [
    b"",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[1]",
    b"null",
    b'"text"',
    b"\xff\xfe",
    b'{"n": 1' + b"0" * 5000 + b"}",
]
JOURNAL = "s3://memory/root/generate/f00d/journal"


def read_manifest(store: MemoryStore, data: bytes) -> None:
    store.put("s3://memory/root/a/f00d/manifest.json", data)
    Artifact.open(store, "s3://memory/root/a/f00d")


def read_usage(store: MemoryStore, data: bytes) -> None:
    store.put(f"{JOURNAL}/usage/1.json", data)
    Usage(store, JOURNAL, "2", Ledger()).read()


def read_segment(store: MemoryStore, data: bytes) -> None:
    name = f"{JOURNAL}/rows/0000000000001-a-000000.jsonl.zst"
    store.put(name, zstandard.compress(data or b"x"))
    list(Segments(store, JOURNAL, 1000).read("rows", {"c"}))


def read_production(store: MemoryStore, data: bytes) -> None:
    store.put(production.address(store, "m"), data)
    production.read(store, "m")


READERS: list[Callable[[MemoryStore, bytes], Any]] = [
    read_manifest,
    read_usage,
    read_segment,
    read_production,
    lambda _, data: canary.Canary.of(data, "s3://memory/canary.json"),
    lambda _, data: pointed(data.decode(errors="replace"), "s3://memory/pointer"),
]


@pytest.mark.parametrize("data", GARBAGE, ids=[str(each[:8]) for each in GARBAGE])
@pytest.mark.parametrize("read", READERS)
def test_garbage_in_the_bucket_is_an_error_with_its_address(
    read: Callable[[MemoryStore, bytes], Any], data: bytes, store: MemoryStore
) -> None:
    with pytest.raises(MoaaError, match=r"s3://(memory|moaa)/"):
        read(store, data)


@pytest.mark.parametrize("line", ['[["a"], "row", {}]', '[{"a": 1}, "row", {}]', "[", "{}", "7"])
def test_a_line_of_a_journal_of_another_form_is_damage(line: str, store: MemoryStore) -> None:
    with pytest.raises(ArtifactError, match="is damaged"):
        read_segment(store, line.encode())


@pytest.mark.parametrize("data", [*GARBAGE, b"{}", b'{"stage": 1, "status": "done"}'])
def test_a_damaged_record_hides_no_other_one(
    data: bytes, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    good = record("sft", "done")
    store.put(f"{store.root}/runs/r/dpo.json", data)
    store.put(f"{store.root}/runs/r/sft.json", json.dumps(good).encode())
    assert records.read(store, "r") == [good]
    assert re.search(r"runs/r/dpo\.json is no record of a stage", caplog.text)


@pytest.mark.parametrize("data", GARBAGE)
def test_a_retraining_that_cannot_be_read_is_none(data: bytes, store: MemoryStore) -> None:
    store.put(f"{progress.folder(store, 'm')}/last.json", data)
    assert progress.read(store, "m") is None


@pytest.mark.parametrize("data", GARBAGE)
def test_what_is_no_object_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        object_of(data)
