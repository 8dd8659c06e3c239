"""Sends JSON over plain HTTP to servers that need only a few kinds of calls."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from moaa.store.bytes import object_of

TIMEOUT_S: Final = 30
NO_HEADER: Final = "it has several lines, or characters that are not ASCII"
"""Why a key does not fit a header."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server below this address. `key`: its bearer token, if it needs one."""

    url: str
    key: str | None = None

    def ask(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: Mapping[str, str] = MappingProxyType({}),
        method: Literal["GET", "POST", "PATCH"] | None = None,
    ) -> dict[str, Any]:
        """Return the answer to a request: GET without a body, else POST, unless `method` is given.
        Raises OSError (HTTPError for a status of failure) and ValueError."""
        url = f"{self.url.rstrip('/')}/{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            return object_of(answer.read())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: the key goes only to the server that the recipe names."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect())


def key_of(variable: str | None) -> str | None:
    """Return the key in an environment variable; None if no variable is given.

    Raises LookupError if the variable is not set, or holds no key.
    """
    if not variable:
        return None
    if not (key := os.environ.get(variable, "").strip()):
        raise LookupError(f"the environment variable {variable} is not set")
    if not fits_a_header(key):  # an HTTP library's own error would show it
        raise LookupError(f"the environment variable {variable} holds no key: {NO_HEADER}")
    return key


def fits_a_header(key: str) -> bool:
    """Return whether a key can be sent in a header of HTTP."""
    return key.isascii() and key.isprintable()


def without_key(text: str, variable: str | None) -> str:
    """Return the text without the key in this variable: some servers repeat the key."""
    key = os.environ.get(variable or "", "").strip()
    return text.replace(key, "***") if key else text
