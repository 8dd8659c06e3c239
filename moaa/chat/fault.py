"""The failure of one attempt at a call. Another attempt may succeed."""

from __future__ import annotations


class Fault(Exception):
    """This attempt failed; another may succeed. `after_s`: how long the server asked to wait.

    `alive`: the server answered, and nothing says that it is unwell: other requests may go on.
    `silent`: nothing came from the server at all.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        after_s: float = 0.0,
        *,
        alive: bool = False,
        silent: bool = False,
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.after_s = after_s
        self.alive = alive
        self.silent = silent


SHOWN = 300
"""How many characters of a server's message are shown."""


def shorten(text: str) -> str:
    """One line of at most `SHOWN` characters."""
    line = writable(" ".join(text.split()))
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def writable(text: str) -> str:
    """The text with U+FFFD for half surrogate pairs (an answer cut inside an emoji): no file can
    contain them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
