"""Chunks of streams: events read from bytes, and an answer joined from its chunks. No I/O."""

from __future__ import annotations

import json
from typing import Any, Final

from moaa.gateway.wire import ApiError

DONE: Final = b"[DONE]"
LONGEST_EVENT: Final = 32 << 20


class Events:
    """Reads server-sent events from bytes that may be split anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, part: bytes) -> list[bytes]:
        """Take the next bytes; return the data of each event that is now complete."""
        text = self._rest + part
        if b"\r" in text:
            # A last \r may be the first half of a line end.
            held = text[-1:] if text.endswith(b"\r") else b""
            text = (
                text[: len(text) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
            )
        *events, self._rest = text.split(b"\n\n")
        if len(self._rest) > LONGEST_EVENT:
            raise ApiError(502, "The engine sent an event without end.", "bad_gateway")
        found = [_data(event) for event in events]
        return [data for data in found if data is not None]

    @property
    def whole(self) -> bool:
        """Whether no incomplete event is left."""
        return not self._rest.strip()


def _data(event: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line[:5] == b"data:"]
    return b"\n".join(lines) if lines else None


def encoded(data: dict[str, Any]) -> bytes:
    """Return the data as JSON. Half a surrogate pair, which an engine may send, stays as it is."""
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(data, separators=(",", ":")).encode()


def event(data: dict[str, Any]) -> bytes:
    """Return the data as an event of a stream."""
    return b"data: " + encoded(data) + b"\n\n"


def says_something(choice: dict[str, Any]) -> bool:
    """Return whether a choice of a chunk has a first token, and not only the role."""
    delta = choice.get("delta") or {}
    said = [value for name, value in delta.items() if name != "role"]
    return any(said) or bool(choice.get("finish_reason") or choice.get("logprobs"))


class Assembled:
    """The choices of an answer, joined from the chunks of its stream."""

    def __init__(self) -> None:
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, choice: dict[str, Any]) -> None:
        """Add a choice of a chunk."""
        index = choice.get("index") or 0
        empty = {"index": index, "message": {"role": "assistant", "content": None}}
        whole = self._choices.setdefault(index, {**empty, "finish_reason": None})
        _merge(whole["message"], choice.get("delta") or {})
        for name, value in choice.items():
            if name in ("index", "delta") or value is None:
                continue
            if isinstance(value, dict) and isinstance(whole.get(name), dict):
                _merge(whole[name], value)
            else:
                whole[name] = value

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The choices in order."""
        return [self._choices[index] for index in sorted(self._choices)]

    @property
    def ended(self) -> int:
        """How many choices are complete."""
        return sum(choice["finish_reason"] is not None for choice in self._choices.values())


def _merge(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Join texts and lists to the earlier ones; other values replace them."""
    for name, value in part.items():
        before = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif name != "role" and any(
            isinstance(value, kind) and isinstance(before, kind) for kind in (str, list)
        ):
            whole[name] = before + value
        elif isinstance(value, dict) and isinstance(before, dict):
            _merge(before, value)
        else:
            whole[name] = value
