"""Proposals that the client sees while it waits, as `delta.reasoning` of the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moaa.gateway.mixtures.question import Proposals

Delta = tuple[str, dict[str, Any] | None]
"""A piece of reasoning, and the object `moaa` beside it."""


class Preview:
    """Puts out what the proposers write, as the client wants to see it.

    reasoning: one proposal after the other, each below its name. Who has begun first is shown
    while it writes; the others wait for its end. each: every piece at once, with the name.
    """

    def __init__(self, how: Proposals, put: Callable[[Delta], None]) -> None:
        self._each, self._put = how == "each", put
        self._floor: str | None = None
        self._held: dict[str, list[str]] = {}
        self._ended: set[str] = set()

    def says(self, name: str, text: str) -> None:
        """A proposer has written a piece of text."""
        if not text:
            return
        if self._each:
            self._put((text, {"member": name}))
        elif self._floor in (None, name):
            self._put((text if self._floor else f"**{name}**\n\n{text}", None))
            self._floor = name
        else:
            self._held.setdefault(name, []).append(text)

    def ends(self, name: str, entry: dict[str, Any]) -> None:
        """A proposal is whole, or was left out; `entry` says which."""
        if self._each:
            self._put(("", {"member": name, **entry}))
            return
        self._ended.add(name)
        while self._floor in self._ended:
            self._put(("\n\n", None))
            self._floor = None
            if self._held:
                following = next(iter(self._held))
                self.says(following, "".join(self._held.pop(following)))
