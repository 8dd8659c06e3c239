"""A training job: everything that a training needs to know, except secrets.

Secrets come from the environment, as in every other part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from moaa.errors import RecipeError, TrainError, without_stop
from moaa.recipe.files import text_of
from moaa.recipe.schema import Dpo, Launcher, Part, Pool, Runtime, Sft, StoreAddress


class Job(Part):
    """One training.

    `output` is the S3 prefix of its checkpoints, its model and `result.json`.
    """

    kind: Literal["sft", "dpo"]
    numbers: Sft | Dpo
    base: str
    """The model that training starts from: a source for `moaa.weights.local.resolve`. For DPO it is
    also the reference model."""
    revision: str | None = None
    data: str
    """s3:// prefix of the artifact with the rows: sft-data for SFT, preferences for DPO."""
    output: str
    store: StoreAddress
    device: Literal["auto", "cuda", "cpu"] = "auto"
    chat_template: str = ""
    """The text of a chat template that replaces the tokenizer's; empty: the tokenizer's own."""
    template_variables: dict[str, Any] = Field(default_factory=dict)
    """Variables of the chat template, as for the target's engine."""
    max_rejected_share: float = Field(0.02, ge=0, le=1)
    """The training fails if a larger share of its rows cannot be trained on."""
    checkpoint_minutes: float = Field(30, gt=0)
    checkpoint_steps: int | None = Field(None, ge=1)
    """Write a checkpoint after this many steps, instead of minutes."""

    @model_validator(mode="after")
    def _numbers_fit_the_kind(self) -> Self:
        if isinstance(self.numbers, Dpo) != (self.kind == "dpo"):
            raise ValueError(
                f"a {self.kind} job was given the numbers of {type(self.numbers).__name__}"
            )
        return self

    @property
    def result(self) -> str:
        """The address of `result.json`, which is written last:
        it means that the training is done."""
        return f"{self.output}/result.json"

    @classmethod
    def read(cls, where: str) -> Self:
        """Return the job in a local file or at an s3:// address."""
        if where.startswith("s3://"):
            from moaa.store import Store

            text = Store(where.rsplit("/", 1)[0]).get(where).decode()
        else:
            try:
                text = text_of(Path(where))
            except RecipeError as error:
                raise TrainError(
                    f"--job {where} cannot be read: {without_stop(error)}. Give a file or an "
                    "s3:// address."
                ) from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}"
                for each in error.errors()[:5]
            )
            raise TrainError(
                f"--job {where} is not a training job: {wrong}. Run the stage again: it rewrites "
                "the job."
            ) from None


@dataclass(frozen=True, slots=True)
class Launch:
    """A job, and the parts of the recipe that say where and how it is started."""

    job: Job
    runtime: Runtime
    pools: Mapping[str, Pool]

    @property
    def launcher(self) -> Launcher:
        """The recipe's `runtime.launcher`."""
        return self.runtime.launcher

    @property
    def pool(self) -> Pool | None:
        """The pool of the nodes for training; None for any node."""
        return self.pools[self.launcher.pool] if self.launcher.pool else None
