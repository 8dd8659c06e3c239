"""What a stage says to whoever runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def say(text: str) -> None:
    """A line for the log; on the runner's terminal too, if it named one."""
    print(text, file=sys.stderr, flush=True)
    if terminal := os.environ.get("MOAA_TTY"):
        with Path(terminal).open("w") as stream:
            print(text, file=stream, flush=True)
