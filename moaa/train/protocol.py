"""What ranks say to the launcher through their standard output: lines with a prefix, everything
else is log."""

from __future__ import annotations

import json
import os
import time
import traceback
from typing import Any

from moaa.errors import MoaaError

PROGRESS = "moaa-progress "
"""{"note": …} or {"step", "steps", "loss", …}: printed by rank 0."""
ERROR = "moaa-error "
"""{"rank", "time", "type", "message"} and perhaps {"traceback": lines}: printed by a rank that
failed."""


def say(prefix: str, **fields: Any) -> None:
    """Print one line in one write, so that lines of several ranks do not mix."""
    os.write(1, (prefix + json.dumps(fields, ensure_ascii=False) + "\n").encode())


def say_error(rank: int, error: BaseException) -> None:
    """A user's mistake goes by the name of its class in `moaa.errors`; a bug with the end of its
    traceback."""
    fields: dict[str, Any] = {"rank": rank, "time": time.time(), "message": str(error)[:6000]}
    if isinstance(error, MoaaError):
        fields["type"] = next(
            kind.__name__ for kind in type(error).__mro__ if kind.__module__ == MoaaError.__module__
        )
    else:
        fields["type"] = type(error).__name__
        fields["traceback"] = traceback.format_exc().splitlines()[-15:]
    say(ERROR, **fields)


def parse(line: str) -> tuple[str, dict[str, Any]] | None:
    """(prefix, fields) of a line meant for the launcher; None for log. A prefix may stand behind a
    half-written line."""
    for prefix in (PROGRESS, ERROR):
        _, found, text = line.partition(prefix)
        if found:
            try:
                fields = json.loads(text)
            except ValueError:
                return None
            return (prefix, fields) if isinstance(fields, dict) else None
    return None
