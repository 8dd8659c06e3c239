"""Finds texts that repeat one another: set similarity of word 5-grams, and shared runs of words.

Near duplicates are found by prefix filtering (Chaudhuri et al. 2006), without error: if two sets
have a Jaccard similarity of at least t, the rarest (1 - t) of each have an element in common. So
only those elements are indexed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

SHINGLE = 5
"""Words in a shingle."""

Words: TypeAlias = npt.NDArray[np.uint32]
"""The words of a text, as numbers of a `Vocabulary`."""
Hashes: TypeAlias = npt.NDArray[np.uint64]
"""Hashes of runs of words. Among 10 million runs two share a hash with probability 3e-6."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def normalized(text: str) -> str:
    """Return the text without differences of case, white space and Unicode's variant forms."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class Vocabulary:
    """Words as numbers: millions of them need little memory and are fast to compare."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def words(self, text: str) -> Words:
        """Return the words of the normalized text, without punctuation.

        Each kana or Chinese character is a word. A text without any word counts as one word, so
        that it still differs from others.
        """
        flat = normalized(text)
        numbers = self._numbers
        return np.array(
            [numbers.setdefault(word, len(numbers)) for word in _WORD.findall(flat) or [flat]],
            np.uint32,
        )

    def text(self, words: Words) -> str:
        """Return these words as a text."""
        by_number = list(self._numbers)
        return " ".join(by_number[number] for number in words)


def shingles(words: Words) -> Hashes:
    """Return the sorted set of runs of five words; a shorter text is one shingle."""
    return np.unique(_runs(words, min(SHINGLE, len(words))))


class NearDuplicates:
    """Find sets of shingles with a Jaccard similarity of at least `threshold`."""

    def __init__(self, sets: Sequence[Hashes], threshold: float) -> None:
        self._threshold = threshold
        self._sets, self._alone = _ranked(sets)
        self._holders: dict[int, list[int]] = {}

    def add(self, index: int) -> None:
        """Add the set with this index to those that `match` may find."""
        for shingle in self._prefix(index):
            self._holders.setdefault(shingle, []).append(index)

    def match(self, index: int) -> int | None:
        """Return the first added set (its index) that is similar to this one, or None."""
        mine = self._sets[index]
        candidates = {
            other for shingle in self._prefix(index) for other in self._holders.get(shingle, ())
        }
        return next(
            (other for other in sorted(candidates) if self._similar(mine, self._sets[other])), None
        )

    def _prefix(self, index: int) -> list[int]:
        mine = self._sets[index]
        prefix = mine[: len(mine) - math.ceil(self._threshold * len(mine) - 1e-9) + 1]
        found: list[int] = prefix[np.searchsorted(prefix, self._alone) :].tolist()
        return found

    def _similar(self, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> bool:
        if min(len(a), len(b)) < self._threshold * max(len(a), len(b)) - 1e-9:
            return False
        shared = int(_among(b, a).sum())
        return shared >= self._threshold * (len(a) + len(b) - shared) - 1e-9


class SharedRuns:
    """Finds a run of `n` words that a text shares with one of `texts`: pairs of owner and words."""

    def __init__(self, texts: Iterable[tuple[str, Words]], n: int) -> None:
        self._n = n
        self._owner: dict[int, str] = {}
        for owner, words in texts:
            for run in _runs(words, n).tolist():
                self._owner.setdefault(run, owner)
        self._known = np.array(sorted(self._owner), np.uint64)

    def find(self, words: Words) -> tuple[str, Words] | None:
        """Return the owner of the first shared run, and the run; None if there is none."""
        runs = _runs(words, self._n)
        hits = np.flatnonzero(_among(self._known, runs))
        if not len(hits):
            return None
        start = int(hits[0])
        return self._owner[int(runs[start])], words[start : start + self._n]


def _among(known: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which of `values` are in the sorted `known`; np.isin would sort both at each call."""
    if not len(known):
        return np.zeros(len(values), np.bool_)
    places = np.searchsorted(known, values)
    places[places == len(known)] = 0
    found: npt.NDArray[np.bool_] = known[places] == values
    return found


def _ranked(sets: Sequence[Hashes]) -> tuple[list[npt.NDArray[np.int64]], int]:
    """Return each set as ranks, rarest first, and the rank below which an element is
    in only one set."""
    if not sets:
        return [], 0
    _, which, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    ends = np.cumsum([len(each) for each in sets])
    return [np.sort(part) for part in np.split(rank[which], ends[:-1])], int((counts == 1).sum())


def _runs(words: Words, n: int) -> Hashes:
    """Return a hash of each run of n words, in order."""
    # splitmix64: neighbouring numbers must be far apart before the sum
    mixed = (words.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    count = max(0, len(words) - n + 1)
    hashes = np.zeros(count, np.uint64)
    for i in range(n):
        hashes = hashes * _MULTIPLIER + mixed[i : i + count]
    return hashes
