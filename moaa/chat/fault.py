"""How one attempt at a call may fail so that it is not known yet what it means."""

from __future__ import annotations

from moaa.errors import CallRejected, EngineError

TIME_OUT, CONNECTION = "time-out", "connection"
"""The reasons of a `Fault` after which nothing came from the server."""


class Fault(Exception):
    """This attempt failed; another may succeed. `after_s`: how long the server asked to wait.

    `alive`: the server answered, and nothing says that it is unwell: other requests may go on.
    `busy`: the server has too much to do, or this account asks too much of it: that is no fault of
    the request.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        after_s: float = 0.0,
        *,
        alive: bool = False,
        busy: bool = False,
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.after_s = after_s
        self.alive = alive
        self.busy = busy


class Denied(Exception):
    """The server denies this request (403, 451). It is either this prompt, which a moderation does
    not like (`rejected`), or all requests with this key (`failed`)."""

    def __init__(self, rejected: CallRejected, failed: EngineError) -> None:
        super().__init__(str(failed))
        self.rejected, self.failed = rejected, failed


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
