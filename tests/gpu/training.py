"""One training by the project's own code: `torchrun -m moaa.train`, as the launcher starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moaa.store import Store
from moaa.train.job import Job
from tests.gpu.flops import flops_per_token, mfu
from tests.gpu.machine import device, watched_memory
from tests.gpu.shapes import Shape

PROGRESS = "moaa-progress "
WARM_UP = 2
"""Steps that are not measured: the first ones compile kernels and fill the allocator."""


@dataclass
class Training:
    """How a training went. `steps`: (seconds, what rank 0 printed) of each optimizer step."""

    facts: dict[str, Any]
    steps: list[tuple[float, dict[str, Any]]]
    peak_memory_gib: float | None
    wall_s: float

    @property
    def losses(self) -> list[float]:
        return [point["loss"] for point in self.facts["curve"]]

    def measured(self, shape: Shape, lengths: list[int], gpu: str) -> dict[str, Any]:
        """The numbers of this training for the results. TRL counts the padding of packed
        sequences too, under 1 % of the tokens."""
        (begin, first), (end, last) = self.steps[WARM_UP - 1], self.steps[-1]
        tokens_per_s = (last["num_tokens"] - first["num_tokens"]) / (end - begin)
        used = mfu(tokens_per_s * flops_per_token(shape, lengths), gpu)
        return {
            "tokens_per_s": round(tokens_per_s, 1),
            "mfu": None if used is None or gpu == "cpu" else round(used, 4),
            "peak_memory_gib": self.peak_memory_gib,
            "step_s": round((end - begin) / (last["step"] - first["step"]), 4),
            "steps": last["step"],
            "first_loss": self.losses[0],
            "last_loss": self.losses[-1],
            "model": shape.name,
            "parameters": shape.parameters,
            "precision": self.facts["precision"],
            "wall_s": round(self.wall_s, 1),
        }


@dataclass
class Ranks:
    """The processes of a training that runs. Leave the context to end them."""

    job: Job
    folder: Path
    steps: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def __enter__(self) -> Ranks:
        file, scratch = self.folder / "job.json", self.folder / "tmp"
        file.write_text(self.job.model_dump_json())
        scratch.mkdir(exist_ok=True)
        # Without a GPU only the code is tried out, maybe beside other work: threads would wait for
        # each other most of the time.
        threads = 1 if device() == "cpu" else len(os.sched_getaffinity(0))
        environment = {
            **os.environ,
            "TMPDIR": str(scratch),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": str(threads),
        }
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
        self.process = subprocess.Popen(
            [*run, "-m", "moaa.train", self.job.kind, "--job", str(file)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End torchrun and its ranks at once, as a lost machine does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def follow(self, each_step: Callable[[], bool] = lambda: True) -> None:
        """Read what the ranks print until they end, or until `each_step` returns False after a
        step. Fails with the end of their log if they fail."""
        log: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            _, progress, text = line.partition(PROGRESS)
            if not progress:
                log.append(line)
                continue
            said = json.loads(text)
            if "loss" in said:
                self.steps.append((time.monotonic(), said))
                if not each_step():
                    return
        status = self.process.wait()
        assert status == 0, f"the training ended with status {status}:\n{''.join(log[-40:])}"


def train(job: Job, store: Store, folder: Path) -> Training:
    """Run the job to its end."""
    begin = time.monotonic()
    with watched_memory() as peak, Ranks(job, folder) as ranks:
        ranks.follow()
    facts = json.loads(store.get(job.result))["facts"]
    return Training(facts, ranks.steps, peak.gib, time.monotonic() - begin)
