"""What a stage declares about itself, once: the pipeline, its pods, the plan, preflight and the
report all read it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moaa.recipe.schema import Recipe, Training


@dataclass(frozen=True, slots=True)
class Asked:
    """Calls of one role to one model, for the plan. Fractions are averages over conversations."""

    role: str
    model: str
    calls: float
    prompt_tokens: float
    completion_tokens: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A training, for the plan: its numbers, its rows, and the tokens of one epoch."""

    numbers: Training
    rows: int
    epoch_tokens: float
    once_tokens: float = 0
    """Tokens that pass through the model once, beside the epochs."""


def _none(recipe: Recipe) -> Collection[str]:
    return ()


def _no_headline(rows: Mapping[str, int], facts: Mapping[str, Any]) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One stage of the pipeline. Only `name`, `purpose` and `entry` are needed."""

    name: str
    purpose: str
    """What it is for, in a few words. The report shows it."""
    entry: str
    """`package.module:name` of the stage, or of what has its `main`."""
    component: str | None = None
    """`package.module:name` of its Kubeflow component. Made from this declaration if None."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """`{parameter of the component: "stage.output"}`."""
    optional: frozenset[str] = frozenset()
    """The inputs whose stage may be none of the run's."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """`{output: type}`, a type that Kubeflow knows: `Dataset` or `Model`."""
    chosen: Callable[[Recipe], bool] | None = None
    """Whether it is part of this recipe's runs. None: of every run."""
    kind: str = ""
    """What its manifest says it makes."""
    unit: str = "rows"
    """What its progress counts."""
    asks: Callable[[Recipe], Collection[str]] = _none
    """The recipe's models that its mixture or judge asks, whoever serves them."""
    tuned: int = 0
    """How many models that the run trained it asks. It serves them in its own pod."""
    production: bool = False
    """Whether it also asks the version in production, if the recipe publishes."""
    base: bool = False
    """Whether it also asks the target as it was before the run trained it."""
    calls: Callable[[Recipe], Iterable[Asked]] | None = None
    """Its calls, for the plan."""
    training: Callable[[Recipe], Trained] | None = None
    """Its training, for the plan. A stage that has one trains."""
    headline: Callable[[Mapping[str, int], Mapping[str, Any]], str] = _no_headline
    """The one number that says what came out, from the counts of rows and the facts."""
    hours: float = 48
    """Its pod is stopped after this time."""
    cached: bool = True
    """Whether Kubeflow may reuse the result of an equal task."""
    keys: bool = False
    """Whether its pod gets the API keys of the endpoints."""
    packages: Callable[[Recipe], Collection[str]] = _none
    """Python packages that its code needs and that only the serve image has."""

    def models(self, recipe: Recipe) -> frozenset[str]:
        """The recipe's models that it asks, without what the run trains."""
        return frozenset(self.asks(recipe)) | ({recipe.target} if self.base else set())

    @property
    def trains(self) -> bool:
        return self.training is not None

    @property
    def serves(self) -> bool:
        """Whether it asks models: the recipe's, or what the run trained."""
        return self.calls is not None or self.tuned > 0


def needed_by(stage: Declaration) -> frozenset[str]:
    """The names of the stages whose outputs it takes."""
    return frozenset(source.partition(".")[0] for source in stage.inputs.values())
