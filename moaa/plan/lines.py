"""The plan's lines: what each stage asks of each model, or trains, with dollars and GPU-hours where
the recipe allows them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from moaa.plan import calls
from moaa.plan.calls import Asked, sizes
from moaa.recipe.schema import Recipe, Training


@dataclass(frozen=True, slots=True)
class Line:
    """`cost_usd`: tokens at the model's price; `gpu_hours`: tokens at its rate; `gpu_usd`: those
    hours at their pool's price.

    The three are None where the recipe states no price or no rate, or the model is served by an
    endpoint (no GPU of ours).
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


def lines(recipe: Recipe) -> list[Line]:
    """The whole plan, in the order of the pipeline."""
    asked = {
        "generate": [
            a
            for _, prompts, turns in sizes(recipe, "sft")
            for a in calls.generation(recipe, prompts, turns)
        ],
        "sample": [
            a
            for _, prompts, turns in sizes(recipe, "preference")
            for a in calls.sampling(recipe, prompts, turns)
        ],
        "label": [
            a
            for _, prompts, _ in sizes(recipe, "preference")
            for a in calls.labelling(recipe, prompts)
        ],
        "evaluate": [
            a
            for _, prompts, _ in sizes(recipe, "evaluation")
            for a in calls.evaluation(recipe, prompts)
        ],
    }
    return [
        *answering(recipe, "generate", asked["generate"]),
        _sft(recipe),
        *answering(recipe, "sample", asked["sample"]),
        *answering(recipe, "label", asked["label"]),
        _dpo(recipe),
        *answering(recipe, "evaluate", asked["evaluate"]),
    ]


def as_rows(recipe: Recipe) -> list[dict[str, Any]]:
    """The plan as plain data, one dict a stage and model; models are named as the stages' ledgers
    name them."""
    return [asdict(line) for line in lines(recipe)]


def answering(recipe: Recipe, stage: str, asked: Iterable[Asked]) -> Iterator[Line]:
    """One line a model, its roles taken together."""
    models: dict[str, list[Asked]] = {}
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
    """Dollars for these tokens at the model's price. What we trained has none: nobody sells it."""
    price = recipe.models[name].price if name in recipe.models else None
    return (prompt * price.prompt + completion * price.completion) / 1e6 if price else None


def total(values: Iterable[float | None]) -> float | None:
    """The sum of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


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


def _sft(recipe: Recipe) -> Line:
    answer = calls.answer_tokens(recipe, recipe.generate.mixture.aggregator)
    sets = list(sizes(recipe, "sft"))
    conversations = sum(prompts for _, prompts, _ in sets)
    tokens = sum(
        prompts * turns * (recipe.plan.prompt_tokens + answer) for _, prompts, turns in sets
    )
    packed = math.ceil(tokens / recipe.sft.max_length) if recipe.sft.packing else conversations
    return _training(recipe, "sft", recipe.sft, packed, tokens)


def _dpo(recipe: Recipe) -> Line:
    pairs = sum(prompts for _, prompts, _ in sizes(recipe, "preference"))
    tokens = pairs * 2 * (recipe.plan.prompt_tokens + calls.sampled_tokens(recipe))
    # The reference's log-probabilities are computed once: a forward pass, about a third of a
    # training step's work.
    return _training(recipe, "dpo", recipe.dpo, pairs, tokens, once=tokens / 3)


def _training(
    recipe: Recipe, stage: str, numbers: Training, rows: int, epoch_tokens: float, once: float = 0
) -> Line:
    steps = math.ceil(math.ceil(rows / numbers.global_batch) * numbers.epochs)
    share = 1.0
    if numbers.max_steps is not None and steps > numbers.max_steps:
        share, steps = numbers.max_steps / steps, numbers.max_steps
    tokens = epoch_tokens * numbers.epochs * share
    hours = (tokens + once) / recipe.plan.train_tokens_per_gpu_s / 3600
    pool = recipe.runtime.launcher.pool
    return Line(
        stage,
        recipe.target,
        train_tokens=round(tokens),
        steps=steps,
        gpu_hours=hours,
        gpu_usd=_gpu_usd(recipe, pool, hours),
    )
