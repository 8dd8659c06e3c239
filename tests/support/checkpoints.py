"""Checkpoints of two ranks that are threads, and of one."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moaa.train.checkpoints import Checkpoints
from moaa.train.ranks import Ranks

OUTPUT = "s3://memory/root/sft/3f"


PREFIX = f"{OUTPUT}/checkpoints"


SHAPE = {"world_size": 2, "zero_stage": 2, "precision": "bfloat16"}


@dataclass
class Meeting:
    """Where two threads exchange values, as ranks do by the network."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=10))
    values: list[Any] = field(default_factory=lambda: [None, None])


@dataclass(frozen=True)
class Threads(Ranks):
    meeting: Meeting = field(default_factory=Meeting)

    def gather(self, value):
        self.meeting.values[self.rank] = value
        self.meeting.barrier.wait()
        values = list(self.meeting.values)
        self.meeting.barrier.wait()
        return values


def two(work, store, folder, *, shape=SHAPE, steps=2):
    """Run `work(checkpoints)` on two ranks of one node, side by side."""
    meeting = Meeting()
    ranks = [Threads(rank, 2, rank, 2, meeting) for rank in (0, 1)]
    each = [
        Checkpoints(
            store, OUTPUT, rank, folder, shape, minutes=60, loadable=Path.exists, steps=steps
        )
        for rank in ranks
    ]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, each))


def write(folder, step, content=b"state"):
    """What the trainer would write: a file of each rank, and one of rank 0."""
    for name in (
        f"global_step{step}/rank_0.pt",
        f"global_step{step}/rank_1.pt",
        "trainer_state.json",
    ):
        path = folder / f"checkpoint-{step}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + name.encode())


def steps_until(last, folder, content=b"state"):
    """Train without a model: at each step ask whether a checkpoint is due, and write it."""

    def train(checkpoints):
        saved = []
        for step in range(1, last + 1):
            if checkpoints.due(step):
                if checkpoints.ranks.first:
                    write(folder, step, content)
                checkpoints.ranks.wait()
                checkpoints.saved(step)
                saved.append(step)
            checkpoints.finish()  # uploads are through before the next step
        return saved, checkpoints.failed

    return train


def restored(checkpoints):
    """The step that training would begin from, and how many checkpoints were of no use."""
    found = checkpoints.restore()
    return found and found.step, checkpoints.unusable


def saved(checkpoints, step, content):
    """One rank's checkpoint of `step`, uploaded but not committed yet: that is done at the next
    `due`."""
    assert checkpoints.due(step)
    write(checkpoints.folder, step, content)
    checkpoints.saved(step)
    checkpoints.finish()


def alone(store, folder, **options):
    folder.mkdir(exist_ok=True)
    return Checkpoints(
        store,
        OUTPUT,
        Ranks(0, 1, 0, 1),
        folder,
        SHAPE,
        **{"minutes": 60, "steps": 2, "loadable": Path.exists, **options},
    )


def committed(checkpoints, step, content):
    """As `saved`; with its manifest, which is written at the next step."""
    saved(checkpoints, step, content)
    checkpoints.due(step + 1)


def manifest_of(store, step):
    (uri,) = (
        uri for uri, _ in store.list(PREFIX) if uri.endswith(f"/checkpoint-{step}/manifest.json")
    )
    return uri


class Command:
    """What a hostile pickle is: it runs a command when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)
