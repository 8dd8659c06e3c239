"""How many GPUs a stage holds at once and for how long: all its models together, or one after the
other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from moaa.plan.lines import Line
from moaa.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Size:
    """`gpus` held from the beginning to the end of `hours`; by turns, by the largest model. A
    training has one size."""

    stage: str
    gpus: int
    hours: float
    gpus_by_turns: int
    hours_by_turns: float


def sizing(recipe: Recipe, planned: Sequence[Line]) -> list[Size]:
    """One size for each stage whose GPUs and rates the recipe states. Starts of engines are not in
    the hours."""
    found = []
    for stage, group in groupby(planned, key=lambda line: line.stage):
        held = [(_gpus(recipe, line), line.gpu_hours) for line in group]
        if all(gpus and hours is not None for gpus, hours in held):
            found.append(
                _size(stage, [(gpus, hours / gpus) for gpus, hours in held if hours is not None])
            )
    return found


def most(sizes: Iterable[Size]) -> tuple[int, int]:
    """GPUs of the largest stage: together, and by turns."""
    every = list(sizes)
    return max((size.gpus for size in every), default=0), max(
        (size.gpus_by_turns for size in every), default=0
    )


def _size(stage: str, held: list[tuple[int, float]]) -> Size:
    """`held`: GPUs of each model, and the hours that it works on them."""
    gpus, hours = zip(*held, strict=True)
    return Size(stage, sum(gpus), max(hours), max(gpus), sum(hours))


def _gpus(recipe: Recipe, line: Line) -> int:
    """0 where there are none, or nobody knows: an endpoint, a pool of CPUs."""
    launcher = recipe.runtime.launcher
    if line.steps:
        return (
            launcher.ranks * launcher.nodes
            if launcher.pool and recipe.pools[launcher.pool].gpus
            else 0
        )
    model = recipe.models[line.model.partition("+")[0]]
    if not model.pool or not recipe.pools[model.pool].gpus:
        return 0
    return model.tensor_parallel * model.replicas
