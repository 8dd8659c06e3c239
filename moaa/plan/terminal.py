"""The plan on a terminal."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from moaa.plan.lines import Line, lines, total
from moaa.plan.sentences import assumptions, comparison, disk
from moaa.recipe.schema import Recipe

if TYPE_CHECKING:
    from rich.console import RenderableType


def table(recipe: Recipe) -> RenderableType:
    """All of the plan as a rich renderable: lines by stage, sums, the paper's figures, disk, assumptions."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    planned = lines(recipe)
    priced = any(line.cost_usd is not None for line in planned)
    grid = Table(box=None, pad_edge=False, header_style="bold", footer_style="bold", show_footer=True)
    grid.add_column("stage", "all", style="bold")
    grid.add_column("model", overflow="fold")
    for title, footer in _sums(planned, priced):
        grid.add_column(title, footer, justify="right", no_wrap=True)
    for stage, group in groupby(planned, key=lambda line: line.stage):
        for first, line in enumerate(group):
            grid.add_row("" if first else stage, Text(line.model), *_cells(line, priced))
    parts: list[RenderableType] = [Text(f"Plan of {recipe.name}", style="bold"), Text(), grid]
    for title, sentences in (
        ("Beside the paper", comparison(recipe)),
        ("Disk", disk(recipe)),
        ("Assumptions", assumptions(recipe)),
    ):
        parts += [Text(), Text(title, style="bold"), *(Text(f"  {sentence}") for sentence in sentences)]
    return Group(*parts)


def _sums(planned: list[Line], priced: bool) -> list[tuple[str, str]]:
    columns = [
        ("calls", _count(sum(line.calls for line in planned))),
        ("prompt", _tokens(sum(line.prompt_tokens for line in planned))),
        ("completion", _tokens(sum(line.completion_tokens for line in planned))),
        ("trained", _tokens(sum(line.train_tokens for line in planned))),
        ("steps", _count(sum(line.steps for line in planned))),
        ("GPU-hours", _hours(total(line.gpu_hours for line in planned))),
        ("GPU $", _dollars(total(line.gpu_usd for line in planned))),
    ]
    return [*columns, ("API $", _dollars(total(line.cost_usd for line in planned)))] if priced else columns


def _cells(line: Line, priced: bool) -> list[str]:
    cells = [
        _count(line.calls),
        _tokens(line.prompt_tokens),
        _tokens(line.completion_tokens),
        _tokens(line.train_tokens),
        _count(line.steps),
        _hours(line.gpu_hours),
        _dollars(line.gpu_usd),
    ]
    return [*cells, _dollars(line.cost_usd)] if priced else cells


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def _tokens(value: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return str(value) if value else ""


def _hours(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


def _dollars(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
