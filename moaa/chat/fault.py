"""The failure of one attempt at a call, before it is known what it means."""

from __future__ import annotations

from moaa.errors import CallRejected, EngineError

TIME_OUT, CONNECTION = "time-out", "connection"
"""The reasons of a `Fault` after which nothing came from the server."""
MALFORMED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What Python raises when JSON has another form."""


class Fault(Exception):
    """This attempt failed; another may succeed. `after_s`: how long the server asked to wait.

    `alive`: the server answered, and other requests to it may go on. `busy`: the server or this
    account has too many requests; the request itself is not at fault.
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
    """The server denies this request (403, 451). Either its moderation refuses this prompt
    (`rejected`), or it refuses all requests with this key (`failed`)."""

    def __init__(self, rejected: CallRejected, failed: EngineError) -> None:
        super().__init__(str(failed))
        self.rejected, self.failed = rejected, failed


SHOWN = 300
"""How many characters of a server's message are shown."""


def shorten(text: str) -> str:
    """Return the text as one line of at most `SHOWN` characters."""
    line = writable(" ".join(text.split()))
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def writable(text: str) -> str:
    """Return the text with U+FFFD for half surrogate pairs (an answer cut inside an emoji): no file
    can contain them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
