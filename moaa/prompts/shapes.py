"""Reads the user's side of a row of a data set in any common form. No I/O.

It reads: a text; the user's turns; messages with roles, as objects, as pairs, as parallel lists or
as JSON text; pairs of a question and its answer; alternating texts in a column `data`. An answer
must never become a prompt, so a text that may be an answer is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from moaa.errors import RowRejected
from moaa.prompts.message import Message, check_unicode, text_of, unreadable
from moaa.prompts.roles import (
    KNOWN,
    ROLE_KEYS,
    TEXT_KEYS,
    TYPE_KEYS,
    are_names,
    role_key,
    role_of,
    said_by,
)
from moaa.prompts.transcript import opening_of_transcript

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
    "data",
)
"""The columns to look for, in this order, if the source names none. A column with the whole
conversation comes before one with only its first prompt."""
NOT_A_PROMPT = "not a prompt"
"""The reason of a row that is an answer, or that continues another row."""

_QUESTIONS = frozenset(("prompt", "instruction", "question", "query"))
_ALL_USER = frozenset(
    ("turns", "user_turns", *_QUESTIONS, "prompts", "instructions", "questions", "queries")
)
"""Columns whose texts are all by the user."""
_ALTERNATING = frozenset(("data",))
"""Columns with alternating texts, the user's first (UltraChat)."""
_CONVERSATIONS = frozenset(("messages", "turns", "conversations", "conversation", "data"))

_ASKED = ("user", "human", "input", "instruction", "question", "query", "prompt")
_ANSWERED = ("assistant", "gpt", "bot", "output", "response", "answer", "completion")


class UserSide(NamedTuple):
    """What is read from a row: the system message, the user's turns, and what was left out."""

    system: str | None
    turns: list[str]
    left_out: tuple[str, ...] = ()


def user_side(row: object, field: str | None) -> UserSide:
    """Return system message and user turns of a row, from `field` or the first of `FIELDS`.

    Raises RowRejected: `unreadable`, or `NOT_A_PROMPT` for a row that is one message of a
    conversation but not its first.
    """
    if not isinstance(row, Mapping):
        raise unreadable(f"the row is not an object: {json.dumps(row, default=str)[:80]}")
    if row.get("rating") is not None and not any(row.get(name) for name in FIELDS):
        raise RowRejected(NOT_A_PROMPT, "it is the rating of another row")
    column = _column(row, field)
    value = _parsed(column, row[column])
    system = row.get("system") or row.get("system_prompt")
    left_out: tuple[str, ...] = ()
    if isinstance(value, str):
        _refuse_answer(column, row)
        turns = [*_history(column, row), _with_input(column, value, row)]
    else:
        messages = list(_messages(column, value))
        first = next((i for i, each in enumerate(messages) if each.role == "user"), len(messages))
        given = [text_of(column, each) for each in messages[:first] if each.role == "system"]
        system = "\n\n".join(text for text in given if text.strip()) or system
        turns = [text_of(column, each) for each in messages if each.role == "user"]
        late = sum(each.role == "system" for each in messages[first:])
        left_out = ("system message after the first user turn",) * late
    if not isinstance(system, str | None):
        raise unreadable("column system holds no text")
    check_unicode("system", system or "")
    return UserSide((system or "").strip() or None, [turn.strip() for turn in turns], left_out)


def answers_of(row: object, field: str | None) -> list[str]:
    """Return the row's own answer to each of its user turns (the last of several); empty if one has
    none. `row` is one that `user_side` has read. If the prompt's column is one text, the answer is
    in another column of a usual name."""
    assert isinstance(row, Mapping)
    column = _column(row, field)
    value = _parsed(column, row[column])
    if isinstance(value, str):
        earlier = row.get("history") if column in _QUESTIONS else None
        found = _answers("history", list(_messages("history", earlier))) if earlier else []
        beside = (row.get(name) for name in (*_ANSWERED, "chosen"))
        own = next((text for text in beside if isinstance(text, str) and text.strip()), "")
        check_unicode("answer", own)
        return [*found, own.strip()]
    return _answers(column, list(_messages(column, value)))


def _answers(column: str, messages: Sequence[Message]) -> list[str]:
    """Return the answer to each user turn; empty if one has none."""
    found: list[str] = []
    for message in messages:
        if message.role == "user":
            found.append("")
        elif message.role == "assistant" and found:
            found[-1] = text_of(column, message).strip()
    return found


def _column(row: Mapping[str, Any], field: str | None) -> str:
    if field is None:
        present = [name for name in FIELDS if row.get(name) is not None]
        field = next((name for name in present if row[name]), present[0] if present else None)
    if field is None or field not in row:
        raise unreadable(
            f"no column {field or 'with a prompt'} among {', '.join(map(str, row)) or 'none'}"
        )
    return field


def _parsed(column: str, value: object) -> object:
    """Return the value of JSON text with messages or turns, else the value itself."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        if column in _CONVERSATIONS:
            raise unreadable(
                f"column {column} is a text that looks like a list, but is not JSON"
            ) from None
        return value
    items = found if isinstance(found, list) else [found]
    if column in _CONVERSATIONS or all(
        isinstance(each, dict) and role_key(each) is not None for each in items
    ):
        return found
    return value


# A column with one text.


def _refuse_answer(column: str, row: Mapping[str, Any]) -> None:
    """Refuse a text that is an answer (another column says so), or that contains answers."""
    for key in (*ROLE_KEYS, *(() if column in _QUESTIONS else TYPE_KEYS)):
        said = said_by(row, key)
        if not isinstance(said, str):
            continue
        role = role_of(said)
        if role == "user":
            if row.get("parent_id"):  # Open Assistant's rows
                raise RowRejected(NOT_A_PROMPT, "it follows another message (column parent_id)")
        elif role is not None:
            raise RowRejected(NOT_A_PROMPT, f"its column {key} says {said!r}")
        elif key in ("role", "speaker") and column not in _QUESTIONS:
            raise unreadable(f"its column {key} says {said[:40]!r}; {KNOWN}")
    if opening := opening_of_transcript(row[column]):
        raise unreadable(
            f"column {column} holds a whole conversation as one text, answers too (it begins with "
            f"{opening!r}). Give messages with roles, or a column with the question alone"
        )


def _with_input(column: str, value: str, row: Mapping[str, Any]) -> str:
    check_unicode(column, value)
    # Alpaca's rows have `input`, Dolly's `context`.
    extra = (row.get("input") or row.get("context")) if column == "instruction" else None
    if not extra:
        return value
    if not isinstance(extra, str):
        raise unreadable("column input holds no text")
    check_unicode("input", extra)
    return f"{value}\n\n{extra}"


def _history(column: str, row: Mapping[str, Any]) -> list[str]:
    """Return the user's earlier turns of a row with `history`, a list of questions and answers."""
    history = row.get("history")
    if not history or column not in _QUESTIONS:
        return []
    found = list(_messages("history", history))
    return [text_of("history", each) for each in found if each.role == "user"]


# A column with messages.


def _messages(column: str, value: object) -> Iterator[Message]:
    if isinstance(value, Mapping):
        value = _transposed(column, value)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise unreadable(f"column {column} holds neither a text nor turns nor messages")
    if all(isinstance(each, str) for each in value):
        yield from _texts(column, value)
    elif all(isinstance(each, Mapping) for each in value):
        named = any(role_key(each) for each in value)
        for each in value:
            yield from _message(column, each, named=named)
    elif all(_is_pair(each) for each in value):
        named = are_names([first for first, _ in value])
        for first, second in value:
            if named:
                yield _said(column, "role", first, second)
            else:
                yield from (Message("user", first), Message("assistant", second))
    else:
        raise unreadable(f"column {column} holds neither a text nor turns nor messages")


def _transposed(column: str, value: Mapping[str, Any]) -> Sequence[object]:
    """Return the messages of parallel lists {"from": […], "value": […]}, or the one message."""
    lists = {key: each for key, each in value.items() if isinstance(each, list | tuple)}
    roles = [key for key in (*ROLE_KEYS, *TYPE_KEYS) if key in lists]
    texts = [key for key in (*TEXT_KEYS, *_ASKED) if key in lists]
    if not texts or (not roles and role_key(value)):
        return [value]  # one message; its content may be a list of parts
    wanted = {*roles, *texts, *(key for key in _ANSWERED if key in lists)}
    if len({len(lists[key]) for key in wanted}) > 1:
        raise unreadable(f"column {column} holds parallel lists of different lengths")
    return [{key: lists[key][place] for key in wanted} for place in range(len(lists[texts[0]]))]


def _texts(column: str, texts: Sequence[str]) -> Iterator[Message]:
    if column in _ALTERNATING:
        for place, text in enumerate(texts):
            yield Message("assistant" if place % 2 else "user", text)
    elif column in _ALL_USER or not texts:
        for text in texts:
            yield Message("user", text)
    else:
        raise unreadable(
            f"column {column} is a list of texts, and nothing says which of them are answers. "
            "Name it `turns` if all are the user's, `data` if they alternate, or give roles"
        )


def _message(column: str, given: Mapping[str, Any], *, named: bool) -> Iterator[Message]:
    """Yield the message of an object, or the two of a pair.

    `named`: other messages have roles, so one without a role may be an answer.
    """
    if key := role_key(given):
        text = next((given[name] for name in TEXT_KEYS if given.get(name) is not None), None)
        yield _said(column, key, said_by(given, key), text)
        return
    asked = next((name for name in _ASKED if given.get(name) is not None), None)
    answered = next((name for name in _ANSWERED if given.get(name) is not None), None)
    if given.get("system") is not None:
        yield Message("system", given["system"])
    if asked or answered:
        if asked:
            yield Message("user", given[asked])
        if answered:
            yield Message("assistant", given[answered])
        return
    text = next((given[name] for name in TEXT_KEYS if given.get(name) is not None), None)
    if text is not None and column in _ALL_USER and not named:
        yield Message("user", text)  # Arena-Hard's turns
    elif given.get("system") is None:
        raise unreadable(
            f"a message of column {column} has no role: {', '.join(map(str, given)) or 'no keys'}"
        )


def _said(column: str, key: str, by: object, text: Any) -> Message:
    """Return the message of this role. Raises RowRejected if the role is not known."""
    role = role_of(by)
    if role is None:
        raise unreadable(f"a message of column {column} has the {key} {by!r}; {KNOWN}")
    return Message(role, text)


def _is_pair(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return isinstance(value[0], str) and isinstance(value[1], str | None)
