"""What is done at each step of a training: reports, checkpoints, and a stop at broken losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from moaa.errors import TrainError
from moaa.train.checkpoints import Checkpoints
from moaa.train.job import Job
from moaa.train.protocol import PROGRESS, send
from moaa.train.validation import Validation


class Steps(TrainerCallback):
    """Reports each step to the launcher, stops at the first loss that is not finite, and decides
    when checkpoints are written."""

    def __init__(
        self, job: Job, checkpoints: Checkpoints, validation: Validation | None = None
    ) -> None:
        self.job, self.checkpoints, self.validation = job, checkpoints, validation

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the start, and estimate the size of a checkpoint from the model."""
        if state.is_world_process_zero:
            send(PROGRESS, step=state.global_step, steps=state.max_steps, begin=True)
        # For a weight that is spread over the ranks, DeepSpeed leaves an empty tensor with the
        # number of elements in `ds_numel`.
        self.checkpoints.expect(
            sum(
                getattr(weight, "ds_numel", weight.numel())
                for weight in kwargs["model"].parameters()
            )
        )

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check that the numbers are finite, and report the step."""
        if logs is None or "loss" not in logs:
            return
        check_finite(self.job, state.global_step, logs)
        if state.is_world_process_zero:
            send(PROGRESS, step=state.global_step, steps=state.max_steps, **curve_point(logs))

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the measurement on held-out rows."""
        # TRL adds rewards to the log, but not to `metrics`.
        if self.validation and state.log_history:
            self.validation.measured(state.global_step, state.log_history[-1])

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint if one is due."""
        if self.checkpoints.due(state.global_step) and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the upload of the checkpoint."""
        self.checkpoints.saved(state.global_step)


def check_finite(job: Job, step: int, logs: Mapping[str, float]) -> None:
    """Check the numbers. Raises TrainError if the loss or the gradient is NaN or infinite: all
    weights would become the same."""
    for name, what in (("loss", "loss"), ("grad_norm", "gradient norm")):
        if name in logs and not math.isfinite(logs[name]):
            rate = logs.get("learning_rate", job.numbers.learning_rate)
            raise TrainError(
                f"The {what} is {logs[name]} at step {step} (learning rate {rate:.3g}). "
                f"Lower {job.kind}.learning_rate (it is {job.numbers.learning_rate:g}) or raise "
                f"{job.kind}.warmup. If it happens at the first step, look for broken rows or a "
                "broken base model."
            )


def curve_point(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that the trainer logged for one step, with six digits."""
    return {
        name: float(f"{value:.6g}")
        for name, value in logs.items()
        if isinstance(value, int | float)
    }


def curve(trainer: Trainer) -> dict[str, Any]:
    """Return the curve by step (of all attempts), the number of steps, and the tokens that went
    through the model."""
    points, tokens, before = [], 0.0, 0.0
    for entry in trainer.state.log_history:
        if "loss" in entry:
            seen = entry["num_tokens"]  # after a resume TRL starts from 0 again
            tokens += seen - before if seen >= before else seen
            before = seen
            points.append({**curve_point(entry), "step": entry["step"], "num_tokens": int(tokens)})
    return {"curve": points, "steps": trainer.state.global_step, "tokens": int(tokens)}
