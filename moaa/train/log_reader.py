"""The ranks' output as the launcher reads it: progress is shown, errors are kept, the end of the
log explains a failure."""

from __future__ import annotations

import math
import re
import signal
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from moaa.errors import ArtifactError, EngineError, MoaaError, RecipeError, StoreError, TrainError
from moaa.progress import Progress
from moaa.train.protocol import PROGRESS, parse

_EXITCODE = re.compile(r"rank\s*:\s*(\d+)[^\n]*\n\s*exitcode\s*:\s*-(\d+)")
"""In torchrun's table of failures: a rank that a signal ended."""

_TORCHRUN = re.compile(r"torch.distributed.elastic.multiprocessing")
"""Here torchrun begins to report that a rank has failed: what follows is about torchrun."""

_NOISE = re.compile(r"FutureWarning|^\s*warnings\.warn|it/s\]|s/it\]|^[=\-*]{5,}$")

_PASSED_ON: dict[str, type[MoaaError]] = {
    kind.__name__: kind
    for kind in (TrainError, StoreError, ArtifactError, RecipeError, EngineError)
}
"""Errors of a rank that are complete in themselves."""

MEMORY = "Lower micro_batch or max_length, raise zero_stage, turn gradient_checkpointing on, or give it more memory."


@dataclass
class Shown:
    """How far the progress is that was shown: a training that begins again from a checkpoint steps
    back."""

    step: int = 0
    tokens: int = 0


class Listener:
    """Give it the output line by line; where the training failed, `failure` says why."""

    def __init__(self, progress: Progress, tail: int = 15, shown: Shown | None = None) -> None:
        """`shown`: by the listeners of earlier attempts at the same training."""
        self._progress = progress
        self._shown = shown or Shown()
        self._tail: deque[str] = deque(maxlen=tail)
        self._summary: deque[str] = deque(maxlen=200)
        self.errors: list[dict[str, Any]] = []
        """What ranks said they failed of: `{rank, time, type, message}`."""
        self._over = False
        self._begun = False

    def line(self, text: str) -> None:
        text = text.rstrip()
        found = parse(text)
        if found is None:
            self._summary.append(text)
            self._over = self._over or bool(_TORCHRUN.search(text))
            if text and not self._over and not _NOISE.search(text):
                self._tail.append(text[:500])
        elif found[0] == PROGRESS:
            self._show(found[1])
        else:
            self.errors.append(found[1])

    def _show(self, said: dict[str, Any]) -> None:
        if "note" in said:
            self._progress.note(said["note"])
            return
        step, again = said["step"], said.get("begin") or not self._begun
        if again:
            self._progress.note("")
            self._progress.total(said["steps"])
        self._progress.advance(step - self._shown.step, journaled=bool(again))
        self._begun, self._shown.step = True, step
        tokens = int(said.get("num_tokens", 0))
        if tokens > self._shown.tokens:
            self._progress.tokens("training", tokens - self._shown.tokens)
        self._shown.tokens = tokens
        for name in ("loss", "rewards/margins", "rewards/accuracies", "learning_rate"):
            if name in said:
                self._progress.gauge(name, said[name])

    @property
    def said_first(self) -> float:
        """When the first rank said what it failed of; infinity where none did."""
        return min((error["time"] for error in self.errors), default=math.inf)

    @property
    def killed(self) -> list[tuple[int, int]]:
        """Ranks that a signal ended, other than torchrun's own SIGTERM, each with the signal's
        number."""
        found = [
            (int(rank), int(number)) for rank, number in _EXITCODE.findall("\n".join(self._summary))
        ]
        return [(rank, number) for rank, number in found if number != signal.SIGTERM]

    @property
    def tail(self) -> str:
        """The end of the log, indented."""
        return _indented(self._tail)

    def failure(self, exit_status: int | None, log: str) -> MoaaError:
        """The error that ended the training: a rank's own words first, then the end of the log."""
        where = f"\n  The whole log: {log}"
        if self.killed:
            rank, number = self.killed[0]
            hint = (
                f", most likely for want of memory.\n  {MEMORY}"
                if number == signal.SIGKILL
                else "."
            )
            return TrainError(
                f"Rank {rank} was ended by {signal.Signals(number).name}{hint}\n{self.tail}{where}"
            )
        if not self.errors:
            return TrainError(
                f"The training ended with status {exit_status} before any rank said "
                f"why.\n{self.tail}{where}"
            )
        first = min(self.errors, key=lambda error: error["time"])
        if first["type"] in _PASSED_ON:
            return _PASSED_ON[first["type"]](first["message"])
        hint = f"\n  {MEMORY}" if "out of memory" in first["message"].lower() else ""
        lines = _indented(first.get("traceback", self._tail))
        return TrainError(
            f"Rank {first['rank']} failed: {first['type']}: "
            f"{first['message']}{hint}\n{lines}{where}"
        )


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)
