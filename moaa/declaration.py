"""A stage's declaration, written once and read by the pipeline, its pods, the plan, preflight and
the report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moaa.recipe.schema import Recipe, Training


@dataclass(frozen=True, slots=True)
class RoleCalls:
    """Calls of one role to one model, for the plan. Fractions are averages over conversations."""

    role: str
    model: str
    calls: float
    prompt_tokens: float
    completion_tokens: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A training, for the plan: its settings, its rows, and the tokens of one epoch."""

    numbers: Training
    rows: int
    epoch_tokens: float
    once_tokens: float = 0
    """Tokens that pass through the model once, in addition to the epochs."""


def _none(recipe: Recipe) -> Collection[str]:
    return ()


def _no_headline(rows: Mapping[str, int], facts: Mapping[str, Any]) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One stage of the pipeline. Only `name`, `purpose` and `entry` are needed."""

    name: str
    purpose: str
    """The stage's purpose in a few words, for the report."""
    entry: str
    """`package.module:name` of the stage, or of an object with its `main`."""
    component: str | None = None
    """`package.module:name` of its Kubeflow component. None: it is made from this declaration."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """`{parameter of the component: "stage.output"}`."""
    optional: frozenset[str] = frozenset()
    """The inputs whose stage may be missing in the run."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """`{output: type}`, with a type of Kubeflow: `Dataset` or `Model`."""
    chosen: Callable[[Recipe], bool] | None = None
    """Returns whether the stage is part of a recipe's runs. None: it is part of every run."""
    kind: str = ""
    """The kind of artifact in its manifest."""
    unit: str = "rows"
    """The unit of its progress."""
    asks: Callable[[Recipe], Collection[str]] = _none
    """Returns the recipe's models that its mixture or judge asks, however they are served."""
    tuned: int = 0
    """How many models trained by the run it asks. It serves them in its own pod."""
    production: bool = False
    """Whether it also asks the version in production, if the recipe publishes."""
    base: bool = False
    """Whether it also asks the target in the state before the run's training."""
    calls: Callable[[Recipe], Iterable[RoleCalls]] | None = None
    """Returns its calls, for the plan."""
    training: Callable[[Recipe], Trained] | None = None
    """Returns its training, for the plan. A stage with one trains."""
    headline: Callable[[Mapping[str, int], Mapping[str, Any]], str] = _no_headline
    """Returns the one number that sums up the result, from the counts of rows and the facts."""
    hours: float = 48
    """Its pod is stopped after this time."""
    cached: bool = True
    """Whether Kubeflow may reuse the result of an equal task."""
    keys: bool = False
    """Whether its pod gets the API keys of the endpoints."""
    packages: Callable[[Recipe], Collection[str]] = _none
    """Python packages that its code needs and that only the serve image has."""

    def models(self, recipe: Recipe) -> frozenset[str]:
        """Return the recipe's models that it asks, without those that the run trains."""
        return frozenset(self.asks(recipe)) | ({recipe.target} if self.base else set())

    @property
    def trains(self) -> bool:
        """Whether the stage trains a model."""
        return self.training is not None

    @property
    def serves(self) -> bool:
        """Whether it asks models of the recipe, or models that the run trained."""
        return self.calls is not None or self.tuned > 0


def needed_by(stage: Declaration) -> frozenset[str]:
    """Return the names of the stages whose outputs it takes."""
    return frozenset(source.partition(".")[0] for source in stage.inputs.values())
