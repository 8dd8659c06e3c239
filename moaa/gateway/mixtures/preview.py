"""Proposals that the client sees while it waits, as `delta.reasoning` of the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moaa.gateway.mixtures.question import Proposals

Delta = tuple[str, dict[str, Any] | None]
"""A piece of reasoning, and the object `moaa` that goes with it."""


class Preview:
    """Sends what the proposers write, in the form the client wants.

    reasoning: one proposal after the other, each below its name. The first to begin is shown while
    it writes; the others wait until it ends. each: every piece at once, with the proposer's name.
    """

    def __init__(self, how: Proposals, put: Callable[[Delta], None]) -> None:
        self._each, self._put = how == "each", put
        self._floor: str | None = None
        self._held: dict[str, list[str]] = {}
        self._ended: set[str] = set()

    def says(self, name: str, text: str) -> None:
        """Take a piece of text that a proposer has written."""
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
        """Take the end of a proposal: it is complete or left out, `entry` says which."""
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
