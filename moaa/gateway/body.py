"""The JSON of a request, read once: the fields the gateway needs, and the position of the model's
name.

The bytes are passed on unchanged. Only the model's name is replaced, if the model has another name
at its servers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json import decoder
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from moaa.gateway.wire import invalid, missing, wrong
from moaa.recipe.addresses import dotted
from moaa.recipe.document import Part
from moaa.recipe.mistakes import sentence

P = TypeVar("P", bound=Part)

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_LONG: Final = ("messages", "prompt", "input", "instructions", "tools")
_DECODER: Final = json.JSONDecoder()
_scan_text: Callable[[str, int, bool], tuple[str, int]] = vars(decoder)["scanstring"]
"""Read a JSON string from after its opening quote. It is written in C, and typeshed lacks it."""


@dataclass(slots=True)
class Body:
    """A request's JSON object. `raw`: the bytes; `data`: the parsed object."""

    raw: bytes
    data: dict[str, Any]
    _text: str
    _spans: dict[str, list[tuple[int, int]]]

    @property
    def model(self) -> str:
        """The model's name as the client gave it."""
        name: str = self.data["model"]
        return name

    @property
    def streamed(self) -> bool:
        """Whether the client wants a stream."""
        return self.data.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        """Whether the client wants a last chunk with the number of tokens."""
        options = self.data.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def forget(self) -> None:
        """Free the long fields. A stream may take minutes, and its prompt is not needed once the
        first byte has come."""
        self.raw, self._text, self._spans = b"", "", {}
        for name in _LONG:
            self.data.pop(name, None)

    def for_model(self, name: str, *, with_usage: bool = False) -> bytes:
        """Return the bytes for a server that knows the model by this name. `with_usage`: ask the
        server for the number of tokens too."""
        changes = self._spans["model"] if name != self.model else []
        parts = [(start, end, json.dumps(name)) for start, end in changes]
        if with_usage and not self.wants_usage:
            given = self.data.get("stream_options")
            options = {**given, "include_usage": True} if isinstance(given, dict) else None
            written = json.dumps(options or {"include_usage": True}, ensure_ascii=True)
            if spans := self._spans.get("stream_options"):
                parts += [(start, end, written) for start, end in spans]
            else:
                at = self._text.index("{") + 1
                parts.append((at, at, f'"stream_options":{written},'))
        if not parts:
            return self.raw
        text, at, found = self._text, 0, []
        for start, end, new in sorted(parts):
            found += [text[at:start], new]
            at = end
        return "".join([*found, text[at:]]).encode()


def parse_body(raw: bytes) -> Body:
    """Return the request in these bytes. Raises ApiError 400 unless it is a JSON object with a
    model."""
    text, data, spans = read_object(raw)
    name, stream = data.get("model"), data.get("stream")
    if name is None:
        raise missing("model")
    if not isinstance(name, str):
        raise wrong("model", name, "a text")
    if not isinstance(stream, bool | None):
        raise wrong("stream", stream, "true or false")
    return Body(raw, data, text, spans)


def read_object(
    raw: bytes,
) -> tuple[str, dict[str, Any], dict[str, list[tuple[int, int]]]]:
    """Return the text in these bytes, the members of its JSON object, and the position of each
    value. Raises ApiError 400 if it is none."""
    try:
        text = raw.decode("utf-8")
        return text, *_object(text)
    except UnicodeDecodeError:
        raise invalid("The body is not UTF-8.", code="invalid_json") from None
    except (ValueError, IndexError) as error:
        said = "it ends too early" if isinstance(error, IndexError) else error
        raise invalid(f"The body is not a JSON object: {said}.", code="invalid_json") from None
    except RecursionError:
        raise invalid("The body is nested too deep.", code="invalid_json") from None


def checked_fields(data: Mapping[str, Any], fields: type[P]) -> P:
    """Return these fields of a request. Raises ApiError 400 with the first one that is wrong."""
    try:
        return fields.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = dotted(first["loc"])
        if first["type"] == "missing":
            raise missing(param) from None
        raise invalid(sentence(first, fields), param) from None


def _object(text: str) -> tuple[dict[str, Any], dict[str, list[tuple[int, int]]]]:
    """Return the members of the object, and the position of each value in the text."""
    data: dict[str, Any] = {}
    spans: dict[str, list[tuple[int, int]]] = {}
    at = _after_space(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("it does not begin with {")
    at = _after_space(text, at + 1)
    while text[at : at + 1] != "}":
        if data:
            if text[at] != ",":
                raise ValueError(f"a comma is missing at character {at}")
            at = _after_space(text, at + 1)
        if text[at] != '"':
            raise ValueError(f"a name in quotes is missing at character {at}")
        key, at = _scan_text(text, at + 1, True)
        at = _after_space(text, at)
        if text[at] != ":":
            raise ValueError(f"a colon is missing at character {at}")
        start = _after_space(text, at + 1)
        data[key], end = _DECODER.raw_decode(text, start)
        spans.setdefault(key, []).append((start, end))
        at = _after_space(text, end)
    if _after_space(text, at + 1) != len(text):
        raise ValueError("there is text after it")
    return data, spans


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()
