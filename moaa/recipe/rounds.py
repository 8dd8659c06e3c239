"""The recipe's fields about rounds of self-improvement, and which models rounds have made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, Protocol, Self

from pydantic import Field, model_validator

from moaa.recipe.document import Part
from moaa.recipe.evaluation import Evaluate
from moaa.recipe.gate import Gate
from moaa.recipe.labelling import Problem
from moaa.recipe.prompts import Prompts
from moaa.recipe.serving import Model

SLICED: Final = ("sft", "preference")
"""The sets of prompts of which each round reads a slice."""


class Rounds(Part):
    """Rounds of self-improvement: a round's winner replaces the target in the next one. `rounds: 3`
    is short for `rounds: {n: 3}`. More than one round needs `gate`."""

    n: int = Field(1, ge=1, le=10)
    """The most rounds. The gate stops them after the first round whose model is not better than the
    one before it."""
    prompts: Literal["disjoint", "same"] = "disjoint"
    """disjoint: each round reads the next slice, `limit` rows, of each source of training prompts.
    same: every round reads the same ones. All rounds are evaluated on the same prompts."""
    round: int = Field(1, ge=1)
    """The number of this round. The run counts it itself; leave it out."""

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.round > self.n:
            raise ValueError(f"round is {self.round}, but there are only {self.n}; leave it out")
        return self

    @property
    def sliced(self) -> bool:
        """Whether each round reads other prompts."""
        return self.n > 1 and self.prompts == "disjoint"


def start_of(target: str) -> str:
    """Return the name of the model that the first round trained: `llama` for `llama+round-2`."""
    return target.partition("+round-")[0]


def made_by_run(models: Mapping[str, Model]) -> set[str]:
    """Return the models whose weights a run made (`llama+sft`, `llama+round-1`): no Deployment of a
    cluster has them."""
    return {
        name for name, model in models.items() if "+" in name and model.source.startswith("s3://")
    }


class _Recipe(Protocol):
    """The fields of a recipe that rounds must fit."""

    @property
    def rounds(self) -> Rounds: ...
    @property
    def gate(self) -> Gate | None: ...
    @property
    def evaluate(self) -> Evaluate: ...
    @property
    def models(self) -> Mapping[str, Model]: ...
    @property
    def target(self) -> str: ...
    @property
    def generating(self) -> frozenset[str]: ...
    @property
    def prompts(self) -> Prompts: ...


def problems(recipe: _Recipe) -> Iterator[Problem]:
    """Yield what is missing for further rounds, with the address of the field."""
    if recipe.rounds.n == 1:
        return
    if not recipe.gate:
        yield ("rounds",), "the gate decides whether there is a next round: add `gate: {}`."
    if "base" not in recipe.evaluate.contestants:
        yield (
            ("evaluate", "contestants"),
            "each round is compared with the one before it: add 'base'.",
        )
    if recipe.target in recipe.models and recipe.target not in recipe.generating:
        yield (
            ("rounds",),
            f"the target {recipe.target} writes no data, so a winner would have no place in the "
            "next round's ensemble. Make it a member of generate.mixture.",
        )
    if recipe.rounds.prompts == "disjoint":
        for name in SLICED:
            for i, source in enumerate(getattr(recipe.prompts, name)):
                if source.limit is None:
                    yield (
                        ("prompts", name, i, "limit"),
                        "each round reads the next `limit` rows: give a limit, or set "
                        "rounds.prompts to 'same'.",
                    )
