"""Addresses, names in manifests, JSON and overlaps: whatever the text."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from moaa.artifacts import File
from moaa.errors import StoreError
from moaa.prompts.overlap import NearDuplicates, SharedRuns, Vocabulary, normalized, shingles
from moaa.store import split
from moaa.store.bytes import read_ahead, to_json

WORDS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=14).map(" ".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.text(st.characters(exclude_characters="/"), min_size=1), st.text())
def test_an_address_is_split_into_its_bucket_and_its_key(bucket: str, key: str) -> None:
    assert split(f"s3://{bucket}/{key}") == (bucket, key)
    assert split(f"s3://{bucket}") == (bucket, "")


@given(st.text().filter(lambda text: not text.startswith("s3://")))
def test_any_other_text_is_no_address(text: str) -> None:
    with pytest.raises(StoreError, match="s3://BUCKET/PREFIX"):
        split(text)


@given(st.text("ab./\\ ", max_size=12) | st.text(max_size=12))
def test_a_name_that_a_manifest_accepts_stays_below_the_folder(name: str) -> None:
    try:
        file = File(name=name, size=1, sha256="")
    except ValidationError:
        return
    folder = Path("/folder/below")
    assert ".." not in PurePosixPath(file.path).parts
    assert (folder / file.path).is_relative_to(folder)
    assert not name.startswith("/")


@given(JSON)
def test_json_comes_back_as_it_was(value: Any) -> None:
    data = to_json(value)
    assert json.dumps(json.loads(data)) == json.dumps(value)
    data.decode()


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4))
def test_reading_ahead_keeps_the_order(items: list[int], threads: int) -> None:
    assert list(read_ahead(str, items, threads)) == [str(item) for item in items]


@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


@given(st.lists(WORDS, min_size=1, max_size=8), st.sampled_from([0.3, 0.5, 0.9, 1.0]))
def test_near_duplicates_are_those_that_their_sets_say(texts: list[str], threshold: float) -> None:
    vocabulary = Vocabulary()
    sets = [shingles(vocabulary.words(text)) for text in texts]
    near = NearDuplicates(sets, threshold)
    for index, mine in enumerate(sets):
        similar = [
            other
            for other in range(index)
            if len(np.intersect1d(mine, sets[other])) + 1e-9
            >= threshold * len(np.union1d(mine, sets[other]))
        ]
        assert near.match(index) == (similar[0] if similar else None)
        near.add(index)


@given(st.lists(WORDS, min_size=1, max_size=4), WORDS, st.integers(3, 6))
def test_a_shared_run_of_words_is_found_if_there_is_one(
    texts: list[str], text: str, n: int
) -> None:
    vocabulary = Vocabulary()
    owners = [(str(number), vocabulary.words(each)) for number, each in enumerate(texts)]
    found = SharedRuns(owners, n).find(vocabulary.words(text))

    def runs(words: str) -> set[tuple[str, ...]]:
        split_words = words.split()
        return {tuple(split_words[at : at + n]) for at in range(len(split_words) - n + 1)}

    shared = runs(text) & set().union(*map(runs, texts))
    assert (found is not None) == bool(shared)
    if found:
        owner, run = found
        words = tuple(vocabulary.text(run).split())
        assert words in runs(texts[int(owner)])
        assert words in shared
