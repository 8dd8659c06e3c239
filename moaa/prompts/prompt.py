"""A prompt, and how it is read from a row of a data set of any common shape. No I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moaa.errors import RowRejected
from moaa.prompts.overlap import normalized
from moaa.recipe.schema import Source

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
"""The columns to look for, in this order, if the source names none. A column with the whole
conversation comes before one with its first prompt."""

_USER = {"user", "human"}


@dataclass(frozen=True, slots=True)
class PromptRow:
    """The user's side of a conversation.

    `id`: first 16 hex digits of the sha256 of the normalized turns, and of the system message if
    there is one: the same question under another persona is another prompt.
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


def read_prompt(row: object, source: Source) -> PromptRow:
    """Return the prompt of one row: its text, turns or messages in `source.field` or `FIELDS`.

    Only user turns are kept (the mixture answers anew), and of these the first `source.turns`. A
    row without a prompt is returned with its `problem`, and `build` rejects it.
    """
    name = source.name or source.source
    try:
        system, turns = _conversation(row, source.field)
    except RowRejected as error:
        text = json.dumps(row, sort_keys=True, default=str)
        return PromptRow(digest_of([text]), name, None, (), problem=error.detail)
    turns = turns[: source.turns]
    texts = [normalized(turn) for turn in turns]
    return PromptRow(
        digest_of([normalized(system), texts] if system else texts), name, system, tuple(turns)
    )


def digest_of(texts: list[Any]) -> str:
    """Return the first 16 hex digits of the sha256 of these texts."""
    joined = json.dumps(texts, ensure_ascii=True)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


def _conversation(row: object, field: str | None) -> tuple[str | None, list[str]]:
    """Return system message and user turns of a row. Raises RowRejected with the reason."""
    if not isinstance(row, Mapping):
        raise RowRejected(
            "unreadable", f"the row is not an object: {json.dumps(row, default=str)[:80]}"
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
        messages = list(_messages(field, value))
        system = next((content for role, content in messages[:1] if role == "system"), system)
        turns = [content for role, content in messages if role in _USER]
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
    # Half of a surrogate pair: neither Parquet nor HTTP can carry it.
    except UnicodeEncodeError as error:
        raise RowRejected(
            "unreadable", f"column {field} is not valid Unicode: {error.reason}"
        ) from None
