"""Reads the output of the ranks: shows the progress, keeps the errors, explains a failure."""

from __future__ import annotations

import math
import re
import signal
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moaa.errors import (
    ArtifactError,
    DiskFull,
    EngineError,
    HubAway,
    MoaaError,
    RecipeError,
    StoreAway,
    StoreError,
    TooManyRejected,
    TrainError,
)
from moaa.progress import Progress
from moaa.train.protocol import PROGRESS, parse

_EXITCODE = re.compile(r"rank\s*:\s*(\d+)[^\n]*\n\s*exitcode\s*:\s*-(\d+)")
"""A rank in torchrun's table of failures that was stopped by a signal."""

_TORCHRUN = re.compile(r"torch.distributed.elastic.multiprocessing")
"""Here torchrun starts to report that a rank has failed; the following lines are about torchrun."""

_COUNTERS = ("step", "steps", "begin")
_NOISE = re.compile(r"FutureWarning|^\s*warnings\.warn|it/s\]|s/it\]|^[=\-*]{5,}$")

_USER_ERRORS: dict[str, type[MoaaError]] = {
    kind.__name__: kind
    for kind in (
        TrainError,
        TooManyRejected,
        StoreError,
        StoreAway,
        HubAway,
        DiskFull,
        ArtifactError,
        RecipeError,
        EngineError,
    )
}
"""Errors of a rank whose message is complete."""

MEMORY = (
    "Lower micro_batch or max_length, raise zero_stage, turn gradient_checkpointing on, "
    "or give it more memory."
)


@dataclass
class ShownProgress:
    """The progress shown so far: a training that resumes from a checkpoint steps back."""

    step: int = 0
    tokens: int = 0


class LogReader:
    """Takes the output line by line; `explain` then returns the reason of a failure."""

    def __init__(
        self, progress: Progress, tail: int = 15, shown: ShownProgress | None = None
    ) -> None:
        """`tail`: how many lines of the log an error shows. `shown`: by the readers of earlier
        attempts at the same training."""
        self._progress = progress
        self._shown = shown or ShownProgress()
        self._tail: deque[str] = deque(maxlen=tail)
        self._summary: deque[str] = deque(maxlen=200)
        self._in_summary = False
        self._started = False
        self.errors: list[dict[str, Any]] = []
        """Why ranks failed, in their own words: `{rank, time, type, message}`."""

    def read(self, line: str) -> None:
        """Take the next line."""
        line = line.rstrip()
        found = parse(line)
        if found is None:
            self._summary.append(line)
            self._in_summary = self._in_summary or bool(_TORCHRUN.search(line))
            if line and not self._in_summary and not _NOISE.search(line):
                self._tail.append(line[:500])
        elif found[0] == PROGRESS:
            self._show(found[1])
        else:
            self.errors.append(found[1])

    def _show(self, fields: dict[str, Any]) -> None:
        if "note" in fields:
            self._progress.note(fields["note"])
            return
        if "held_out" in fields:
            for name, value in fields["held_out"].items():
                self._progress.gauge(f"held-out {name}", value)
            self._progress.point(self._shown.step, fields["held_out"], "held out/")
            return
        step, again = fields["step"], fields.get("begin") or not self._started
        if again:
            self._progress.note("")
            self._progress.total(fields["steps"])
        self._progress.advance(step - self._shown.step, journaled=bool(again))
        self._started, self._shown.step = True, step
        tokens = int(fields.get("num_tokens", 0))
        if tokens > self._shown.tokens:
            self._progress.tokens("training", tokens - self._shown.tokens)
        self._shown.tokens = tokens
        if "loss" in fields:
            numbers = {name: each for name, each in fields.items() if name not in _COUNTERS}
            self._progress.point(step, numbers)
        for name in ("loss", "rewards/margins", "rewards/accuracies", "learning_rate"):
            if name in fields:
                self._progress.gauge(name, fields[name])

    @property
    def first_error_time(self) -> float:
        """When the first rank reported an error; infinity if none did."""
        return min((error["time"] for error in self.errors), default=math.inf)

    @property
    def killed_ranks(self) -> list[tuple[int, int]]:
        """(rank, signal number) of the ranks that a signal stopped,
        except torchrun's own SIGTERM."""
        found = [
            (int(rank), int(number)) for rank, number in _EXITCODE.findall("\n".join(self._summary))
        ]
        return [(rank, number) for rank, number in found if number != signal.SIGTERM]

    @property
    def tail(self) -> str:
        """The end of the log, indented."""
        return _indented(self._tail)

    def explain(self, exit_status: int | None, log: str) -> MoaaError:
        """Return the error of a training that failed: the report of a rank, then the end of the
        log.

        `log`: where the whole log is.
        """
        where = f"\n  The whole log: {log}"
        # A rank that loses its peer may be aborted (NCCL): the peer's own error is then the reason.
        known = [error for error in self.errors if _is_known(error)]
        if self.killed_ranks and not known:
            rank, number = self.killed_ranks[0]
            out_of_memory = f", most likely because it ran out of memory.\n  {MEMORY}"
            hint = out_of_memory if number == signal.SIGKILL else "."
            name = signal.Signals(number).name
            return TrainError(f"Rank {rank} was stopped by {name}{hint}\n{self.tail}{where}")
        if not self.errors:
            return TrainError(
                f"The training stopped with exit status {exit_status} before any rank reported "
                f"a reason.\n{self.tail}{where}"
            )
        first = min(known or self.errors, key=lambda error: error["time"])
        if first["type"] in _USER_ERRORS:
            return _USER_ERRORS[first["type"]](first["message"])
        hint = f"\n  {MEMORY}" if _of_memory(first) else ""
        lines = _indented(first.get("traceback", self._tail))
        return TrainError(
            f"Rank {first['rank']} failed: {first['type']}: {first['message']}{hint}\n"
            f"{lines}{where}"
        )


def _is_known(error: Mapping[str, Any]) -> bool:
    """Return whether a rank's error cannot come from the loss of another rank."""
    return error["type"] in _USER_ERRORS or _of_memory(error)


def _of_memory(error: Mapping[str, Any]) -> bool:
    return "out of memory" in error["message"].lower()


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)
