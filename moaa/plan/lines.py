"""The plan's lines: the calls of each stage to each model, or its training.

With dollars and GPU-hours if the recipe has prices and rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moaa.declaration import Declaration, RoleCalls, Trained
from moaa.recipe.next_round import planned
from moaa.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Line:
    """One stage and model of the plan.

    `cost_usd`: tokens at the model's price. `gpu_hours`: tokens at its rate. `gpu_usd`: those
    hours at their pool's price. They are None if the recipe has no price or no rate, or if an
    endpoint serves the model, so that the run holds no GPU for it.
    """

    stage: str
    model: str
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    train_tokens: int = 0
    steps: int = 0
    cost_usd: float | None = None
    gpu_hours: float | None = None
    gpu_usd: float | None = None


def lines(recipe: Recipe, stages: Iterable[Declaration]) -> list[Line]:
    """Return the whole plan, in the order of the stages."""
    found: list[Line] = []
    for stage in stages:
        if stage.calls:
            found += answering(recipe, stage.name, stage.calls(recipe))
        if stage.training:
            found.append(_training(recipe, stage.name, stage.training(recipe)))
    return found


def of_rounds(recipe: Recipe, stages: Sequence[Declaration]) -> list[list[Line]]:
    """Return the plan of each round of self-improvement, as if all before it were won."""
    return [lines(each, stages) for each in planned(recipe)]


def as_rows(planned: Iterable[Line]) -> list[dict[str, Any]]:
    """Return the plan as plain data, one dict a stage and model, with the models' names in the
    stages' ledgers."""
    return [asdict(line) for line in planned]


def answering(recipe: Recipe, stage: str, asked: Iterable[RoleCalls]) -> Iterator[Line]:
    """Yield one line a model, with the sum of its roles."""
    models: dict[str, list[RoleCalls]] = {}
    for each in asked:
        models.setdefault(each.model, []).append(each)
    for name, roles in models.items():
        prompt, completion = (
            sum(a.prompt_tokens for a in roles),
            sum(a.completion_tokens for a in roles),
        )
        hours = _gpu_hours(recipe, name, prompt, completion)
        model = recipe.models[name.split("+")[0]]
        yield Line(
            stage,
            name,
            round(sum(a.calls for a in roles)),
            round(prompt),
            round(completion),
            cost_usd=cost(recipe, name, prompt, completion),
            gpu_hours=hours,
            gpu_usd=_gpu_usd(recipe, model.pool, hours),
        )


def cost(recipe: Recipe, name: str, prompt: float, completion: float) -> float | None:
    """Return the dollars for these tokens at the model's price; a trained model has no price."""
    price = recipe.models[name].price if name in recipe.models else None
    return (prompt * price.prompt + completion * price.completion) / 1e6 if price else None


def total(values: Iterable[float | None]) -> float | None:
    """Return the sum of the known values; None if none is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def dollars(line: Line) -> float | None:
    """Return the dollars of the GPUs that the run holds, else of tokens at the model's price; None
    if neither is known."""
    return line.cost_usd if line.gpu_usd is None else line.gpu_usd


def _gpu_hours(recipe: Recipe, name: str, prompt: float, completion: float) -> float | None:
    base, *trained = name.split("+")
    model = recipe.models[base]
    if model.rate is None or (model.endpoint and not trained):
        return None
    return (
        (prompt / model.rate.prompt + completion / model.rate.completion)
        * model.tensor_parallel
        / 3600
    )


def _gpu_usd(recipe: Recipe, pool: str | None, hours: float | None) -> float | None:
    if hours is None:
        return None
    stated = recipe.pools[pool].gpu_hour_usd if pool else None
    return hours * (recipe.plan.gpu_hour_usd if stated is None else stated)


def _training(recipe: Recipe, stage: str, trained: Trained) -> Line:
    numbers = trained.numbers
    steps = math.ceil(math.ceil(trained.rows / numbers.global_batch) * numbers.epochs)
    share = 1.0
    if numbers.max_steps is not None and steps > numbers.max_steps:
        share, steps = numbers.max_steps / steps, numbers.max_steps
    tokens = trained.epoch_tokens * numbers.epochs * share
    hours = (tokens + trained.once_tokens) / recipe.plan.train_tokens_per_gpu_s / 3600
    return Line(
        stage,
        recipe.target,
        train_tokens=round(tokens),
        steps=steps,
        gpu_hours=hours,
        gpu_usd=_gpu_usd(recipe, recipe.runtime.launcher.pool, hours),
    )
