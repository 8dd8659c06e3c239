"""Chooses prompts: removes repeated and unusable ones and those near to the evaluation. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from moaa.prompts.overlap import (
    SHINGLE,
    Hashes,
    NearDuplicates,
    SharedRuns,
    Vocabulary,
    Words,
    normalized,
    shingles,
)
from moaa.prompts.prompt import PromptRow, digest_of
from moaa.recipe.schema import Prompts

TRAINED: Final = "near a prompt that production was trained on"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A prompt that is in no set, and why. `reason` is a short fixed text for counting."""

    row: PromptRow
    set: str
    reason: str
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a row of the table `rejected`."""
        row = self.row
        return {
            "id": row.id,
            "source": row.source,
            "set": self.set,
            "reason": self.reason,
            "detail": self.detail,
            "text": row.text[:500],
        }


@dataclass(frozen=True, slots=True)
class Selection:
    """The sets by name, and all rejected prompts in the order of reading."""

    kept: dict[str, list[PromptRow]]
    rejected: list[Rejected]


def build(
    sets: Mapping[str, Iterable[PromptRow]],
    config: Prompts,
    guarded: Sequence[PromptRow] = (),
    trained: Sequence[PromptRow] = (),
) -> Selection:
    """Return the sets without empty, too long, repeated or contaminated prompts.

    Prompts are compared within a set: SFT and preference prompts may be the same (the paper uses
    UltraFeedback's for both). Of equal prompts the first is kept. A prompt of these two sets is
    contaminated if it shares `decontaminate_ngram` words in a row with an evaluation prompt, or is
    a near duplicate of one or of one of its turns. Questions of benchmarks (`guarded`) count as
    evaluation prompts. Prompts near to those that production was `trained` on are left out of the
    sources that ask for this.
    """
    kept: dict[str, list[PromptRow]] = {}
    rejected: list[Rejected] = []
    texts = _Texts()
    # The evaluation prompts come first.
    for name in sorted(sets, key=lambda name: name != "evaluation"):
        sieve = _Sieve(name, config, texts, rejected)
        rows = sieve.usable(sets[name])
        if name != "evaluation":
            rows = sieve.uncontaminated(rows, [*kept.get("evaluation", []), *guarded])
            rows = sieve.untrained(rows, trained)
        kept[name] = sieve.unrepeated(rows)
    return Selection(kept, rejected)


class _Text(NamedTuple):
    words: Words
    shingles: Hashes


class _Texts:
    """The texts by which prompts are compared, without system messages; made once for each id."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self._known: dict[str, list[_Text]] = {}

    def of(self, row: PromptRow) -> list[_Text]:
        """Return the whole prompt, then each of several turns that is long enough to compare."""
        if row.id not in self._known:
            turns = [self.vocabulary.words(turn) for turn in row.turns]
            own = [turn for turn in turns if len(turn) >= SHINGLE] if len(turns) > 1 else []
            self._known[row.id] = [
                _Text(words, shingles(words)) for words in (np.concatenate(turns), *own)
            ]
        return self._known[row.id]


@dataclass(frozen=True, slots=True)
class _Sieve:
    """The steps for one set: each returns the rows that it keeps, and rejects the others."""

    set: str
    config: Prompts
    texts: _Texts
    rejected: list[Rejected]

    def usable(self, rows: Iterable[PromptRow]) -> list[PromptRow]:
        kept: list[PromptRow] = []
        for row in rows:
            size = len(row.text) + len(row.system or "")
            if row.problem:
                self._reject(row, row.reason, row.problem)
            elif not row.turns or not all(row.turns):
                self._reject(
                    row, "empty", "a user turn without text" if row.turns else "no user turn"
                )
            elif size > self.config.max_characters:
                self._reject(
                    row,
                    "too long",
                    f"{size:,} characters; max_characters is {self.config.max_characters:,}",
                )
            else:
                kept.append(row)
        return kept

    def uncontaminated(self, rows: list[PromptRow], evaluation: list[PromptRow]) -> list[PromptRow]:
        guarded = [(row.id, text) for row in evaluation for text in self.texts.of(row)]
        candidates = [
            (place, text) for place, row in enumerate(rows) for text in self.texts.of(row)
        ]
        runs = SharedRuns(
            ((owner, text.words) for owner, text in guarded), self.config.decontaminate_ngram
        )
        near = NearDuplicates(
            [text.shingles for _, text in (*guarded, *candidates)], self.config.near_duplicate
        )
        for index in range(len(guarded)):
            near.add(index)

        found: dict[int, tuple[str, str]] = {}
        for index, (place, text) in enumerate(candidates, len(guarded)):
            if place in found:
                continue
            if shared := runs.find(text.words):
                run = self.texts.vocabulary.text(shared[1])
                found[place] = (
                    "shares a run of words with an evaluation prompt",
                    f"with {shared[0]}: {run}",
                )
            elif (match := near.match(index)) is not None:
                found[place] = ("near an evaluation prompt", f"like {guarded[match][0]}")
        for place, why in found.items():
            self._reject(rows[place], *why)
        return [row for place, row in enumerate(rows) if place not in found]

    def untrained(self, rows: list[PromptRow], trained: Sequence[PromptRow]) -> list[PromptRow]:
        asked = [place for place, row in enumerate(rows) if row.skip_trained]
        if not asked or not trained:
            return rows
        sets = [self._marked(row) for row in (*trained, *(rows[place] for place in asked))]
        near = NearDuplicates(sets, self.config.near_duplicate)
        for index in range(len(trained)):
            near.add(index)
        gone: set[int] = set()
        for index, place in enumerate(asked, len(trained)):
            if (match := near.match(index)) is not None:
                self._reject(rows[place], TRAINED, f"like {trained[match].id}")
                gone.add(place)
        return [row for place, row in enumerate(rows) if place not in gone]

    def unrepeated(self, rows: list[PromptRow]) -> list[PromptRow]:
        unique: dict[str, PromptRow] = {}
        for row in rows:
            if row.id in unique:
                self._reject(row, "duplicate", f"of {row.id} from {unique[row.id].source}")
            else:
                unique[row.id] = row
        rows = list(unique.values())
        if self.config.near_duplicate == 1:
            return rows
        near = NearDuplicates([self._marked(row) for row in rows], self.config.near_duplicate)
        kept: list[PromptRow] = []
        for index, row in enumerate(rows):
            if (match := near.match(index)) is not None:
                self._reject(
                    row, "near duplicate", f"of {rows[match].id} from {rows[match].source}"
                )
            else:
                near.add(index)
                kept.append(row)
        return kept

    def _marked(self, row: PromptRow) -> Hashes:
        """Return the shingles of the whole prompt under its system message."""
        return self.texts.of(row)[0].shingles ^ _mark(row.system)

    def _reject(self, row: PromptRow, reason: str, detail: str) -> None:
        self.rejected.append(Rejected(row, self.set, reason, detail))


def _mark(system: str | None) -> np.uint64:
    """Return a number that makes shingles under different system messages differ."""
    return np.uint64(int(digest_of([normalized(system)]), 16) if system else 0)
