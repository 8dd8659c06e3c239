"""The questions of benchmarks as prompts, so that training prompts near to them are left out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from moaa.benchmarks import data
from moaa.benchmarks.benchmark import Benchmark
from moaa.benchmarks.faults import unexpected
from moaa.benchmarks.first_read import PUBLISHED, Reading, compared
from moaa.benchmarks.items import Item
from moaa.benchmarks.table import chosen
from moaa.errors import HubAway, RecipeError, StoreError
from moaa.progress.messages import log
from moaa.prompts import sources
from moaa.prompts.prompt import PromptRow
from moaa.recipe.schema import Recipe, Source
from moaa.store import Store

UNREADABLE = (RecipeError, StoreError, HubAway)
"""Errors that keep questions from being read: the benchmark then has no score."""


def guarded(recipe: Recipe) -> dict[str, tuple[Source, ...]]:
    """Return the sources of the chosen benchmarks that have their own questions, by name."""
    return {each.name: each.sources for each in chosen(recipe) if each.sources}


def questions(benchmark: Benchmark[Any], store: Store) -> tuple[list[Item], str]:
    """Return the benchmark's questions from its own sources, and for the report whether they are
    the published ones or those of the first reading.

    Raises RecipeError, StoreError or HubAway if they cannot be read.
    """
    readings = _readings(benchmark, store)
    items = data.unique(benchmark.items(chain.from_iterable(readings)), benchmark.title)
    _refuse_none(items, benchmark, readings)
    if not benchmark.is_published(items):
        return items, compared(readings, store)
    others = [each for each in readings if benchmark.beside in each.columns]
    pinned = f"{PUBLISHED}; {benchmark.beside}: {compared(others, store)}" if others else PUBLISHED
    return items, pinned


def prompts(recipe: Recipe, store: Store) -> tuple[list[PromptRow], dict[str, str]]:
    """Return the questions of the chosen benchmarks, as prompts named `benchmark:question`. Also
    return why a benchmark cannot be read: it will have no score either."""
    found: list[PromptRow] = []
    missing: dict[str, str] = {}
    for benchmark in chosen(recipe):
        if not benchmark.sources:
            continue
        try:
            readings = _readings(benchmark, store)
            asked = benchmark.asked(chain.from_iterable(readings))
            _refuse_none(asked, benchmark, readings)
        except UNREADABLE as error:
            missing[benchmark.title] = str(error)
            continue
        except Exception as error:
            missing[benchmark.title] = unexpected(error, f"{benchmark.title}, its questions")
            continue
        found += [
            PromptRow(f"{benchmark.name}:{id}", benchmark.title, None, turns)
            for id, turns in asked
            if any(turn.strip() for turn in turns)
        ]
    return found, missing


def contents(recipe: Recipe, store: Store) -> dict[str, str]:
    """Return the current content of the chosen benchmarks' sources, for fingerprints. Sources that
    cannot be read are noted: when they can be read, it is another result."""
    found: dict[str, str] = {}
    for benchmark in chosen(recipe):
        for source in benchmark.sources:
            key = f"benchmarks.{benchmark.name}: {source.source}"
            try:
                found[key] = sources.content(source, store)
            except UNREADABLE as error:
                log.warning(f"{benchmark.title}: {error}")
                found[key] = "not there"
    return found


def _refuse_none(
    asked: Sequence[object], benchmark: Benchmark[Any], readings: Sequence[Reading]
) -> None:
    if not asked:
        counts = ", ".join(f"{each.source.source} ({each.rows:,} rows)" for each in readings)
        raise RecipeError(
            f"{benchmark.title}: its data hold no question: {counts}. Give the published rows."
        )


def _readings(benchmark: Benchmark[Any], store: Store) -> list[Reading]:
    return [Reading(source, sources.rows(source, store)) for source in benchmark.sources]
