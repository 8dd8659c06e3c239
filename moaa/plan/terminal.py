"""The plan on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from moaa.plan.lines import Line, total
from moaa.plan.sentences import assumptions, comparison, disk, rounds
from moaa.plan.sizing import Size, most, sizing
from moaa.recipe.schema import Recipe

if TYPE_CHECKING:
    from rich.console import RenderableType

NOTE = (
    "read: prompt tokens, or training tokens of all epochs; written: tokens of the answers. "
    "GPU $: GPU-hours at the price of a GPU-hour. API $: tokens at the models' prices."
)


def table(
    recipe: Recipe, by_round: Sequence[Sequence[Line]], shown: Sequence[str] = ()
) -> RenderableType:
    """Return the whole plan for a terminal: lines of the first round, sums, all rounds, the paper's
    numbers, what the evaluation can show (`shown`, one sentence a benchmark), disk, assumptions."""
    planned = by_round[0]
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    priced = any(line.cost_usd is not None for line in planned)
    grid = Table(
        box=None, pad_edge=False, header_style="bold", footer_style="bold", show_footer=True
    )
    grid.add_column("stage", "all", style="bold", no_wrap=True)
    grid.add_column("model", no_wrap=True)
    for title, footer in _sums(planned, priced):
        grid.add_column(title, footer, justify="right", no_wrap=True)
    for stage, group in groupby(planned, key=lambda line: line.stage):
        for first, line in enumerate(group):
            grid.add_row("" if first else stage, Text(line.model), *_cells(line, priced))
    parts: list[RenderableType] = [Text(f"Plan of {recipe.name}", style="bold"), Text(), grid]
    parts.append(Text(NOTE, style="dim"))
    if sizes := sizing(recipe, planned):
        heading = Text("GPUs held at once", style="bold")
        parts += [Text(), heading, Padding(_sizes(sizes), (0, 0, 0, 2), expand=False)]
    for title, sentences in (
        ("Rounds; the table is of the first one", rounds(by_round)),
        ("Beside the paper", comparison(recipe, planned)),
        ("What the evaluation can show, in 80 % of the cases", shown),
        ("Disk", disk(recipe, planned)),
        ("Assumptions", assumptions(recipe, planned)),
    ):
        if sentences:
            parts += [Text(), Text(title, style="bold")]
        parts += [Padding(Text(sentence), (0, 0, 0, 2), expand=False) for sentence in sentences]
    return Group(*parts)


def _sizes(sizes: list[Size]) -> RenderableType:
    from rich.table import Table

    grid = Table(
        box=None, pad_edge=False, header_style="bold", footer_style="bold", show_footer=True
    )
    grid.add_column("stage", "at most", no_wrap=True)
    together, turns = most(sizes)
    for title, gpus in (("together", together), ("by turns", turns)):
        grid.add_column(title, f"{gpus}", justify="right", no_wrap=True)
        grid.add_column("hours", "", justify="right", no_wrap=True)
    for size in sizes:
        cells = [f"{size.gpus}", _amount(size.hours)]
        cells += [f"{size.gpus_by_turns}", _amount(size.hours_by_turns)]
        grid.add_row(size.stage, *cells)
    return grid


def _sums(planned: Sequence[Line], priced: bool) -> list[tuple[str, str]]:
    columns = [
        ("calls", _count(sum(line.calls for line in planned))),
        ("read", _tokens(sum(line.prompt_tokens + line.train_tokens for line in planned))),
        ("written", _tokens(sum(line.completion_tokens for line in planned))),
        ("GPU-h", _amount(total(line.gpu_hours for line in planned))),
        ("GPU $", _amount(total(line.gpu_usd for line in planned))),
    ]
    api = ("API $", _amount(total(line.cost_usd for line in planned)))
    return [*columns, api] if priced else columns


def _cells(line: Line, priced: bool) -> list[str]:
    cells = [
        f"{line.steps:,} steps" if line.steps else _count(line.calls),
        _tokens(line.prompt_tokens + line.train_tokens),
        _tokens(line.completion_tokens),
        _amount(line.gpu_hours),
        _amount(line.gpu_usd),
    ]
    return [*cells, _amount(line.cost_usd)] if priced else cells


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def _tokens(value: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return str(value) if value else ""


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
