"""Which processes live."""

from __future__ import annotations

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
    """The first child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
