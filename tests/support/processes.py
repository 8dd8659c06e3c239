"""Which processes live."""

from __future__ import annotations

import os
import time
from itertools import pairwise
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


def engine_groups(model: str) -> list[int]:
    """The process groups of a model's servers that this process started, as guards' children."""
    groups = []
    for thread in Path(f"/proc/{os.getpid()}/task").iterdir():
        try:
            children = (thread / "children").read_text().split()
        except FileNotFoundError:
            continue
        for guard in children:
            command = Path(f"/proc/{guard}/cmdline").read_text().split("\0")
            if ["--served-model-name", model] in map(list, pairwise(command)):
                groups.append(child_of(int(guard)))
    return groups
