"""Two stages that take the place of a whole round before its gate: a model of a few bytes, and its
evaluation. The model of round `LOST` loses against the one before it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Final

from moaa.artifacts import File
from moaa.benchmarks.head_to_head import win_rates
from moaa.recipe.schema import Part, Recipe
from moaa.stage import Context, stage
from moaa.stages import table
from tests.support.example_scores import benchmarks

LOST: Final = 3
PROMPTS: Final = 40
DPO: Final = replace(table.DPO, entry="tests.support.round_stages:dpo", component=None, inputs={})
EVALUATE: Final = replace(
    table.EVALUATE,
    entry="tests.support.round_stages:evaluate",
    component=None,
    inputs={"dpo": "dpo.dpo_model"},
    optional=frozenset(),
)


class RoundPart(Part):
    """What both depend on."""

    round: int


def part_of(recipe: Recipe) -> RoundPart:
    """The round that the recipe is of."""
    return RoundPart(round=recipe.rounds.round)


@stage(DPO, part=part_of, content=lambda *_: {})
def dpo(part: RoundPart, context: Context) -> None:
    """A model of one file."""
    weights, name = b"of round %d" % part.round, "model.safetensors"
    context.store.put(f"{context.out.uri}/model-1/{name}", weights)
    digest = hashlib.sha256(weights).hexdigest()
    context.out.adopt([File(name=name, size=len(weights), sha256=digest, key=f"model-1/{name}")])


@stage(EVALUATE, part=part_of, content=lambda *_: {})
def evaluate(part: RoundPart, context: Context) -> None:
    """An evaluation on held-out prompts: dpo wins three of four, or loses them."""
    answers: list[dict[str, Any]] = []
    judgements: list[dict[str, Any]] = []
    for item in range(PROMPTS):
        about = {"id": str(item), "benchmark": "head_to_head", "group": "s"}
        for model in ("base", "dpo"):
            text = f"The answer of {model} to question {item}." + " More." * (item % 5)
            said = {"model": model, "turn": 1, "text": text, "tokens": 9, "finish_reason": "stop"}
            answers.append({**about, **said, "messages": []})
        p = 0.9 if (item % 4 > 0) is (part.round != LOST) else 0.1
        pair = {"model_a": "dpo", "model_b": "base", "p": p}
        orders = [{"verdict": verdict} for verdict in "AB"]
        judgements.append({**about, **pair, "orders": orders, "lost": []})
    for table_, rows in {"answers": answers, "judgements": judgements}.items():
        for row in rows:
            context.out.write(row, table=table_)
    played = benchmarks(judgements, answers)["head_to_head"]
    context.facts |= {
        "benchmarks": {"head_to_head": played},
        "contestants": ["base", "dpo"],
        "win_rates": win_rates(played["scores"]),
    }
