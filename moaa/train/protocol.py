"""Messages of the ranks to the launcher: lines of their standard output that begin with a prefix.

All other lines are log.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from typing import Any

from moaa.errors import MoaaError
from moaa.store.bytes import to_json

PROGRESS = "moaa-progress "
"""{"note": …}, {"step", "steps", "loss", …} or {"held_out": {"loss", …}}; printed by rank 0."""
ERROR = "moaa-error "
"""{"rank", "time", "type", "message"}, and {"traceback": lines} for a bug;
printed by a rank that failed."""


def send(prefix: str, **fields: Any) -> None:
    """Print one message in one write, so that the lines of several ranks do not mix."""
    os.write(1, prefix.encode() + to_json(fields) + b"\n")


def send_error(rank: int, error: BaseException) -> None:
    """Print why this rank failed.

    The type of a user's mistake is the name of its class in `moaa.errors`; a bug has the end of its
    traceback.
    """
    fields: dict[str, Any] = {"rank": rank, "time": time.time(), "message": str(error)[:6000]}
    if isinstance(error, MoaaError):
        fields["type"] = next(
            kind.__name__ for kind in type(error).__mro__ if kind.__module__ == MoaaError.__module__
        )
    else:
        fields["type"] = type(error).__name__
        fields["traceback"] = traceback.format_exc().splitlines()[-15:]
    send(ERROR, **fields)


def parse(line: str) -> tuple[str, dict[str, Any]] | None:
    """Return (prefix, fields) of a message; None for a line of log.

    The prefix may come after the start of another, unfinished line.
    """
    for prefix in (PROGRESS, ERROR):
        _, found, text = line.partition(prefix)
        if found:
            try:
                fields = json.loads(text)
            except ValueError:
                return None
            return (prefix, fields) if isinstance(fields, dict) else None
    return None
