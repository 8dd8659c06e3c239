"""The form of requests to one server: newer hosted models refuse some of the usual fields.

Such a server names the field that it refuses. The field is then left out, or renamed, in this
request and in all later ones to the same server; the client counts these answers. Only fields that
an answer can do without are given up: the limit of its length is sent under another name, and a
refused temperature is replaced by the server's own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Final

from moaa.chat.fault import MALFORMED

LENGTH: Final = "max_tokens"
RENAMED: Final = "max_completion_tokens"
SAMPLING: Final = ("temperature", "top_p")
NO_ROOM: Final = "output limit was reached"
"""What a server says when thoughts used up all tokens of a request."""
CODES: Final = frozenset({"unsupported_parameter", "unsupported_value"})
_SAID: Final = re.compile(r"unsupported|not supported|does(?:n't| not) support", re.IGNORECASE)
_FIELD: Final = re.compile(r"\b(max_tokens|temperature|top_p)\b")


@dataclass(frozen=True, slots=True)
class Form:
    """The fields that a server refuses, in the order in which it refused them."""

    refused: tuple[str, ...] = ()

    def of(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return a request's fields as this server accepts them."""
        found = {name: value for name, value in fields.items() if name not in self.refused}
        if LENGTH in self.refused and LENGTH in fields:
            found[RENAMED] = fields[LENGTH]
        return found

    def without(self, field: str) -> Form:
        """Return the form without this field too."""
        return replace(self, refused=(*self.refused, field))


USUAL: Final = Form()


def refused_field(body: bytes) -> str:
    """Return the field that an error of status 400 or 422 refuses, if the request can do without
    it; empty for every other error."""
    text = body.decode(errors="replace")
    try:
        error = json.loads(text)["error"]
        message, code = str(error["message"]), error.get("code")
        param = error.get("param")
    except MALFORMED:
        message, code, param = text, None, None
    if not (isinstance(code, str) and code in CODES) and not _SAID.search(message):
        return ""
    if param not in (LENGTH, *SAMPLING):
        # Proxies keep the message but lose its fields. The first field in it is the refused one.
        named = _FIELD.search(message)
        param = named[1] if named and param is None else ""
    return str(param)
