"""A message of a row of a data set: its role, and its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from moaa.errors import RowRejected

Role: TypeAlias = Literal["user", "assistant", "system", "tool"]


class Message(NamedTuple):
    """A message in the form of its row."""

    role: Role
    content: object


def text_of(column: str, message: Message) -> str:
    """Return the text of a message; its parts are joined. Only a user's message must have one."""
    content = message.content
    if isinstance(content, Mapping):
        content = content.get("parts", [content])
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        content = "".join(_part(column, message.role, part) for part in content)
    if content is None and message.role != "user":
        return ""
    if not isinstance(content, str):
        raise unreadable(f"a message of column {column} has no text: {str(content)[:40]}")
    check_unicode(column, content)
    return content


def _part(column: str, role: Role, part: object) -> str:
    """Return the text of a part. A picture or a file cannot be left out: the question needs it."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        kind = part.get("type", "text")
        text = part.get("text", part.get("content"))
        if kind in ("text", "input_text", None) and isinstance(text, str):
            return text
        raise unreadable(
            f"the {role} message of column {column} has a part of type {kind!r}; only text is read"
        )
    raise unreadable(f"a part of a {role} message of column {column} is no text")


def check_unicode(column: str, text: str) -> None:
    """Check that the text is valid Unicode. Raises RowRejected if not."""
    try:
        text.encode()
    # Half of a surrogate pair: neither Parquet nor HTTP can hold it.
    except UnicodeEncodeError as error:
        raise unreadable(f"column {column} is not valid Unicode: {error.reason}") from None


def unreadable(detail: str) -> RowRejected:
    """Return the error for a row that cannot be read, with the reason."""
    return RowRejected("unreadable", detail)
