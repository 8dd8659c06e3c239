"""Measures a training on rows that it never sees: before, after each epoch, at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from moaa.train.best import Best
from moaa.train.data import Prepared
from moaa.train.job import Job
from moaa.train.protocol import PROGRESS, send
from moaa.train.ranks import Ranks

MEASURED: Final = ("loss", "rewards/accuracies", "rewards/margins")
"""The numbers of a measurement that are kept; the last two are DPO's.
TRL's names, without `eval_`."""


def point(entry: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the numbers of a measurement in the trainer's log, with six digits;
    None for another entry."""
    if "eval_loss" not in entry:
        return None
    return {
        name: float(f"{entry[f'eval_{name}']:.6g}") for name in MEASURED if f"eval_{name}" in entry
    }


@dataclass
class Validation:
    """The held-out rows of a training, and the best weights so far by their loss."""

    job: Job
    held: Prepared
    ranks: Ranks
    scratch: Path
    save: Callable[[str], None] = field(default=lambda folder: None)
    """Writes the weights to a folder; all ranks call it."""
    kept: Best | None = None
    """Where the best weights are kept after this attempt."""
    best_step: int | None = None
    best_loss: float = math.inf

    def measured(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Report a measurement. Keep the weights if they are the best so far and wanted."""
        if (found := point(metrics)) is None:
            return
        if self.ranks.first:
            send(PROGRESS, held_out=found)
        # Every rank has the same number: the loss is gathered.
        if self.job.numbers.keep == "best" and found["loss"] < self.best_loss:
            self.best_step, self.best_loss = step, found["loss"]
            folder = self.scratch / "best"
            self.save(str(folder))
            if self.kept and self.ranks.first:
                self.kept.keep(folder, step, found["loss"])

    def restore(self) -> None:
        """Load the best weights of an earlier attempt, which this one resumes."""
        if self.job.numbers.keep != "best" or self.kept is None:
            return
        kept, folder = self.kept, self.scratch / "best"
        if found := self.ranks.on_first(lambda: kept.restore(folder)):
            self.best_step, self.best_loss = found

    def best_model(self) -> Path | None:
        """Return the folder of the best weights; None if the last ones are wanted."""
        return None if self.best_step is None else self.scratch / "best"

    def facts(self, log: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the numbers for the report.

        `kept_step`: the step after which the weights became the model (None: the last).
        `lost_step`: the step of better weights that are lost, because the training was stopped and
        resumed and they could not be kept on S3 (None: there are none).
        """
        curve = [{"step": each["step"], **found} for each in log if (found := point(each))]
        best = min(curve, key=lambda each: each["loss"], default=None)
        kept = self.best_step is not None
        lost = kept and best is not None and best["loss"] < float(f"{self.best_loss:.6g}")
        return {
            "validation": {
                "share": self.job.numbers.validation,
                "rows": self.held.rows,
                "dropped": dict(self.held.dropped),
                "sequences": self.held.sequences,
                "curve": curve,
                "kept_step": self.best_step,
                "lost_step": best["step"] if lost and best else None,
            }
        }
