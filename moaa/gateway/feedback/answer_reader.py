"""Reads an answer from the bytes that a client got."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from moaa.gateway.mixtures.chunks import Assembled, Events
from moaa.gateway.relay import Writes
from moaa.gateway.wire import ApiError


class AnswerReader:
    """Collects one answer. `choices` is empty if the answer could not be read."""

    def __init__(self) -> None:
        self._events, self._answer = Events(), Assembled()
        self._whole: list[dict[str, Any]] = []

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The choices of the answer, in the form of a body that is not streamed."""
        return self._whole or self._answer.choices

    def whole(self, body: bytes) -> None:
        """Take this body as the whole answer."""
        try:
            self._whole = json.loads(body)["choices"]
        except (ValueError, LookupError, TypeError):
            self._whole = []

    def before(self, response: Writes) -> Writes:
        """Return a response that passes on what is written to it, and reads it too."""
        return _ReadResponse(self, response)

    def read(self, part: bytes) -> None:
        """Take the next bytes of a stream. Bytes that cannot be parsed are ignored."""
        try:
            for data in self._events.feed(part):
                if data.startswith(b"{"):
                    for choice in json.loads(data).get("choices") or ():
                        self._answer.add(choice)
        except (ValueError, LookupError, TypeError, AttributeError, ApiError):
            return


class _ReadResponse:
    def __init__(self, reader: AnswerReader, response: Writes) -> None:
        self._reader, self._response = reader, response

    async def write(self, data: bytes) -> None:
        self._reader.read(data)
        await self._response.write(data)


def texts_of(messages: Any) -> list[dict[str, str]] | None:
    """Return the messages with only their text; None if they have images, tools or anything else
    that a row cannot hold."""
    if not isinstance(messages, list):
        return None
    found: list[dict[str, str]] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("tool_calls"):
            return None
        role, text = message.get("role"), _text(message.get("content"))
        if text is None or role not in ("system", "developer", "user", "assistant"):
            return None
        found.append({"role": "system" if role == "developer" else role, "content": text})
    return found


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        return None
    parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(parts) else None
