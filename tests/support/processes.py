"""Which processes live."""

from __future__ import annotations

import time
from pathlib import Path


def group(pgid: int) -> list[int]:
    """The living processes of a group."""
    living = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, pgrp = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(pgrp) == pgid and state != "Z":
                living.append(int(entry.name))
    return living


def child_of(pid: int) -> int:
    """The first child of a process; waits up to 10 s for it to be started."""
    deadline = time.monotonic() + 10
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        assert time.monotonic() < deadline, f"process {pid} has no child"
        time.sleep(0.02)
    return int(children[0])
