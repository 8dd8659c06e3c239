"""How many GPUs a stage holds at once and for how long.

Either all its models together, or one after the other (in turns).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from moaa.plan.lines import Line
from moaa.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Size:
    """`gpus` are held for `hours`. In turns, only the GPUs of the largest model are held.

    For a training both are the same.
    """

    stage: str
    gpus: int
    hours: float
    gpus_by_turns: int
    hours_by_turns: float


def sizing(recipe: Recipe, planned: Sequence[Line]) -> list[Size]:
    """Return one size for each stage whose GPUs and rates are in the recipe.

    The hours do not include starts of engines.
    """
    found = []
    for stage, group in groupby(planned, key=lambda line: line.stage):
        held = [(_gpus(recipe, line), line.gpu_hours) for line in group]
        if all(gpus and hours is not None for gpus, hours in held):
            found.append(
                _size(stage, [(gpus, hours / gpus) for gpus, hours in held if hours is not None])
            )
    return found


def most(sizes: Iterable[Size]) -> tuple[int, int]:
    """Return the GPUs of the largest stage: together, and in turns."""
    every = list(sizes)
    together = max((size.gpus for size in every), default=0)
    return together, max((size.gpus_by_turns for size in every), default=0)


def _size(stage: str, held: list[tuple[int, float]]) -> Size:
    """`held`: (GPUs, hours) of each model."""
    gpus, hours = zip(*held, strict=True)
    return Size(stage, sum(gpus), max(hours), max(gpus), sum(hours))


def _gpus(recipe: Recipe, line: Line) -> int:
    """Return the GPUs of a line; 0 if there are none or their number is unknown (an endpoint)."""
    launcher = recipe.runtime.launcher
    if line.steps:
        has_gpus = launcher.pool and recipe.pools[launcher.pool].gpus
        return launcher.ranks * launcher.nodes if has_gpus else 0
    model = recipe.models[line.model.partition("+")[0]]
    if not model.pool or not recipe.pools[model.pool].gpus:
        return 0
    return model.tensor_parallel * model.replicas
