"""The recipe's settings as a DeepSpeed configuration: arithmetic that does not import DeepSpeed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moaa.errors import TrainError
from moaa.recipe.schema import Training


@dataclass(frozen=True)
class Batch:
    """A global batch: `ranks` x `micro` rows in each forward pass, `accumulation` passes a step."""

    ranks: int
    micro: int
    accumulation: int

    @property
    def total(self) -> int:
        """The rows of one step: ranks x micro x accumulation."""
        return self.ranks * self.micro * self.accumulation


def batch(kind: str, numbers: Training, ranks: int) -> Batch:
    """Return the batch of one optimizer step. Raises TrainError if the numbers do not multiply."""
    together = ranks * numbers.micro_batch
    if numbers.global_batch % together:
        below = numbers.global_batch // together * together
        near = f"{below} or {below + together}" if below else str(together)
        raise TrainError(
            f"{kind}.global_batch is {numbers.global_batch}, but {ranks} ranks x "
            f"{kind}.micro_batch {numbers.micro_batch} = {together} go through the model at once, "
            f"and {numbers.global_batch} is no multiple of {together}. Set {kind}.global_batch to "
            f"{near}, or change {kind}.micro_batch or runtime.launcher.ranks."
        )
    return Batch(ranks, numbers.micro_batch, numbers.global_batch // together)


def check_rows(kind: str, rows: int, what: str, size: Batch) -> None:
    """Check the rows. Raises TrainError if they do not fill one batch:
    no step would be complete."""
    if rows >= size.total:
        return
    together = size.ranks * size.micro
    fitting = rows // together * together
    remedy = (
        f"Set {kind}.global_batch to {fitting} or less"
        if fitting
        else f"Lower {kind}.micro_batch or runtime.launcher.ranks"
    )
    raise TrainError(
        f"There are {rows} {what}, fewer than {kind}.global_batch {size.total} "
        f"({size.ranks} ranks x {size.micro} x {size.accumulation} accumulated): no step would be "
        f"complete. {remedy}, or give it more data."
    )


def config(numbers: Training, size: Batch, device: str, precision: str) -> dict[str, Any]:
    """Return DeepSpeed's configuration. ZeRO keeps fp32 master weights with any precision."""
    zero: dict[str, Any] = {"stage": numbers.zero_stage}
    if device == "cuda" and numbers.zero_stage:
        # A single rank sends nothing: a second stream would only cost time.
        zero |= {"overlap_comm": size.ranks > 1, "contiguous_gradients": True}
    if numbers.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_batch_size": size.total,
        "train_micro_batch_size_per_gpu": size.micro,
        "gradient_accumulation_steps": size.accumulation,
        "gradient_clipping": numbers.max_grad_norm,
        "bf16": {"enabled": precision == "bfloat16"},
        "zero_optimization": zero,
        "steps_per_print": 1_000_000_000,
    }
