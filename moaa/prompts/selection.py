"""Prompts: read from rows of any common shape, deduplicated, and kept away from the evaluation
prompts. No I/O.

read     one row of a data set -> `PromptRow`
build    the three sets -> what is kept of each, and what is rejected with its reason
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from moaa.errors import RowRejected
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
from moaa.recipe.schema import Prompts, Source

FIELDS = (
    "messages",
    "turns",
    "conversations",
    "conversation",
    "prompt",
    "instruction",
    "question",
    "query",
    "text",
)
"""Columns looked for, in this order, where the source names none: a whole conversation before its
first prompt."""

_USER = {"user", "human"}


@dataclass(frozen=True, slots=True)
class PromptRow:
    """The user's side of a conversation. `id`: first 16 hex digits of the sha256 of the normalized
    turns.

    A system message is part of it, where there is one: the same question under another persona is
    another prompt.
    """

    id: str
    source: str
    system: str | None
    turns: tuple[str, ...]
    problem: str = ""
    """Why no prompt could be read from the row; then there are no turns."""

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "source": self.source,
            "system": self.system,
            "turns": list(self.turns),
        }

    @property
    def text(self) -> str:
        return "\n\n".join(self.turns)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A prompt that belongs to no set, and why. `reason` is a short stable text for counting."""

    row: PromptRow
    set: str
    reason: str
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
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
    """The sets by name, and all that was rejected, in the order of reading."""

    kept: dict[str, list[PromptRow]]
    rejected: list[Rejected]


def read(row: object, source: Source) -> PromptRow:
    """The prompt of one row: text, list of turns, or list of messages, in `source.field` or the
    first of `FIELDS`.

    Only user turns are kept (the mixture answers anew), and of these the first `source.turns`. A
    row in which no prompt is found comes back with its `problem`: `build` rejects it.
    """
    name = source.name or source.source
    try:
        system, turns = _conversation(row, source.field)
    except RowRejected as error:
        text = json.dumps(row, sort_keys=True, default=str)
        return PromptRow(_digest([text]), name, None, (), problem=error.detail)
    turns = turns[: source.turns]
    said = [normalized(turn) for turn in turns]
    return PromptRow(
        _digest([normalized(system), said] if system else said), name, system, tuple(turns)
    )


def build(sets: Mapping[str, Iterable[PromptRow]], config: Prompts) -> Selection:
    """The sets without what is empty, too long, repeated, or too near to the evaluation prompts.

    Repetition is looked for within a set: SFT and preference prompts may be the same (the paper
    uses UltraFeedback's for both). From both is removed what shares a run of `decontaminate_ngram`
    words with an evaluation prompt, or is a near duplicate of it or of one of its turns. Of equal
    prompts the first is kept.
    """
    kept: dict[str, list[PromptRow]] = {}
    rejected: list[Rejected] = []
    texts = _Texts()
    for name in sorted(sets, key=lambda name: name != "evaluation"):  # the evaluation prompts first
        sieve = _Sieve(name, config, texts, rejected)
        rows = sieve.usable(sets[name])
        if name != "evaluation":
            rows = sieve.uncontaminated(rows, kept.get("evaluation", []))
        kept[name] = sieve.unrepeated(rows)
    return Selection(kept, rejected)


class _Text(NamedTuple):
    words: Words
    shingles: Hashes


class _Texts:
    """What prompts are compared by, without their system messages. Equal ids have equal texts: each
    is made once for all sets."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self._known: dict[str, list[_Text]] = {}

    def of(self, row: PromptRow) -> list[_Text]:
        """The whole prompt, then each of several turns that says something of its own ("Go on."
        does not)."""
        if row.id not in self._known:
            turns = [self.vocabulary.words(turn) for turn in row.turns]
            own = [turn for turn in turns if len(turn) >= SHINGLE] if len(turns) > 1 else []
            self._known[row.id] = [
                _Text(words, shingles(words)) for words in (np.concatenate(turns), *own)
            ]
        return self._known[row.id]


@dataclass(frozen=True, slots=True)
class _Sieve:
    """The steps that a set goes through: each returns the rows it keeps, and says of the others why
    not."""

    set: str
    config: Prompts
    texts: _Texts
    rejected: list[Rejected]

    def usable(self, rows: Iterable[PromptRow]) -> list[PromptRow]:
        kept: list[PromptRow] = []
        for row in rows:
            size = len(row.text) + len(row.system or "")
            if row.problem:
                self._reject(row, "unreadable", row.problem)
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
        marked = [self.texts.of(row)[0].shingles ^ _mark(row.system) for row in rows]
        near = NearDuplicates(marked, self.config.near_duplicate)
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

    def _reject(self, row: PromptRow, reason: str, detail: str) -> None:
        self.rejected.append(Rejected(row, self.set, reason, detail))


def _digest(texts: list[Any]) -> str:
    joined = json.dumps(texts, ensure_ascii=True)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


def _mark(system: str | None) -> np.uint64:
    """Tells shingles under different system messages apart: prompts that share no shingle are no
    near duplicates."""
    return np.uint64(int(_digest([normalized(system)]), 16) if system else 0)


def _conversation(row: object, field: str | None) -> tuple[str | None, list[str]]:
    """System message and user turns of a row; RowRejected with the reason in its detail."""
    if not isinstance(row, Mapping):
        raise RowRejected(
            "unreadable", f"the row is no object, but {json.dumps(row, default=str)[:80]}"
        )
    if field is None:
        present = [name for name in FIELDS if row.get(name) is not None]
        field = next((name for name in present if row[name]), present[0] if present else None)
    if field is None or field not in row:
        raise RowRejected(
            "unreadable",
            f"no column {field or 'with a prompt'} among {', '.join(map(str, row)) or 'none'}",
        )
    value = row[field]
    system = row.get("system") or row.get("system_prompt")
    if isinstance(value, str):
        extra = row.get("input") if field == "instruction" else None  # Alpaca's rows
        turns = [f"{value}\n\n{extra}" if extra else value]
    elif isinstance(value, Sequence) and all(isinstance(turn, str) for turn in value):
        turns = list(value)
    elif isinstance(value, Sequence) and all(isinstance(message, Mapping) for message in value):
        said = list(_messages(field, value))
        system = next((content for role, content in said[:1] if role == "system"), system)
        turns = [content for role, content in said if role in _USER]
    else:
        raise RowRejected(
            "unreadable", f"column {field} holds neither a text nor turns nor messages"
        )
    for text in turns:
        _check_text(field, text)
    if system is not None:
        _check_text("system", system)
    return (system or "").strip() or None, [turn.strip() for turn in turns]


def _messages(field: str, messages: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for message in messages:
        role = message.get("role", message.get("from"))
        content = message.get("content", message.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise RowRejected("unreadable", f"a message of column {field} has no text or no role")
        yield role, content


def _check_text(field: str, text: object) -> None:
    if not isinstance(text, str):
        raise RowRejected("unreadable", f"column {field} holds no text")
    try:
        text.encode()
    except (
        UnicodeEncodeError
    ) as error:  # half of a surrogate pair: neither Parquet nor HTTP can carry it
        raise RowRejected(
            "unreadable", f"column {field} is not valid Unicode: {error.reason}"
        ) from None
