"""What ranks say to the launcher through their standard output: lines with a prefix, everything else is log."""

from __future__ import annotations

import json
import os
import time
from typing import Any

PROGRESS = "moaa-progress "
"""{"note": …} or {"step", "steps", "loss", …}: printed by rank 0."""
ERROR = "moaa-error "
"""{"rank", "time", "type", "message"}: printed by the rank that failed; `type` is the class's name."""


def say(prefix: str, **fields: Any) -> None:
    """Print one line in one write, so that lines of several ranks do not mix."""
    os.write(1, (prefix + json.dumps(fields, ensure_ascii=False) + "\n").encode())


def say_error(rank: int, error: BaseException) -> None:
    say(ERROR, rank=rank, time=time.time(), type=type(error).__name__, message=str(error)[:6000])


def parse(line: str) -> tuple[str, dict[str, Any]] | None:
    """(prefix, fields) of a line meant for the launcher; None for log. A prefix may stand behind a half-written line."""
    for prefix in (PROGRESS, ERROR):
        _, found, text = line.partition(prefix)
        if found:
            try:
                fields = json.loads(text)
            except ValueError:
                return None
            return (prefix, fields) if isinstance(fields, dict) else None
    return None
