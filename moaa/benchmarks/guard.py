"""The questions of benchmarks as prompts, so that no training prompt is near to one of them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from moaa.benchmarks.benchmark import Benchmark, Item
from moaa.benchmarks.table import chosen
from moaa.prompts import sources
from moaa.prompts.prompt import PromptRow
from moaa.recipe.schema import Recipe, Source
from moaa.store import Store


def guarded(recipe: Recipe) -> dict[str, tuple[Source, ...]]:
    """Return the sources of the chosen benchmarks that have questions of their own, by name."""
    return {each.name: each.sources for each in chosen(recipe) if each.sources}


def questions(benchmark: Benchmark[Any], store: Store) -> list[Item]:
    """Return the benchmark's questions from its own sources.

    Raises RecipeError, StoreError or HubAway if they cannot be read.
    """
    return benchmark.items(
        chain.from_iterable(sources.rows(source, store) for source in benchmark.sources)
    )


def prompts(recipe: Recipe, store: Store) -> list[PromptRow]:
    """Return what the chosen benchmarks ask, as prompts named `benchmark:question`. Raises as
    `questions` does: a check against nothing would look like a good one."""
    return [
        row
        for benchmark in chosen(recipe)
        if benchmark.sources
        for row in _rows(benchmark.name, benchmark.title, questions(benchmark, store))
    ]


def _rows(name: str, title: str, items: Iterable[Item]) -> Iterable[PromptRow]:
    for item in items:
        asked = [each["content"] for each in item.messages if each["role"] == "user"]
        turns = tuple(text for text in (*asked, *item.later) if text.strip())
        if turns:
            yield PromptRow(f"{name}:{item.id}", title, None, turns)
