"""What an answer said, from the bytes that a client got."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from moaa.gateway.mixtures.chunks import Assembled, Events
from moaa.gateway.relay import Writes
from moaa.gateway.wire import ApiError


class AnswerReader:
    """Reads one answer on its way to the client. `choices` is empty if it could not be read."""

    def __init__(self) -> None:
        self._events, self._answer = Events(), Assembled()
        self._whole: list[dict[str, Any]] = []

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The choices of the answer, as a body that is not streamed has them."""
        return self._whole or self._answer.choices

    def whole(self, body: bytes) -> None:
        """The answer is this body."""
        try:
            self._whole = json.loads(body)["choices"]
        except (ValueError, LookupError, TypeError):
            self._whole = []

    def before(self, response: Writes) -> Writes:
        """The response, with everything that is written to it read too."""
        return _ReadResponse(self, response)

    def read(self, part: bytes) -> None:
        """The next bytes of a stream. What cannot be read is passed over."""
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
    """The messages with their texts alone; None if they are about images, tools or anything else
    that a row has no place for."""
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
