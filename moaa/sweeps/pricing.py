"""What a sweep costs before it runs: each variant's plan, without stages of earlier variants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moaa.declaration import Declaration
from moaa.plan.lines import Line, dollars, lines, total
from moaa.sweeps.document import Sweep, Variant
from moaa.sweeps.sharing import keys, shared

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Priced:
    """The plan of one variant: the lines of its own stages, and the stages that it reuses."""

    variant: Variant
    lines: tuple[Line, ...]
    shared: tuple[str, ...]
    keys: dict[str, str]

    @property
    def usd(self) -> float | None:
        """Return the dollars; None if they are not known."""
        return total(map(dollars, self.lines))


def priced(variants: Iterable[Variant], stages: Sequence[Declaration]) -> list[Priced]:
    """Return the plan of each variant, in order; a stage is counted where it first comes."""
    found: list[Priced] = []
    before: set[str] = set()
    for variant in variants:
        recipe = variant.loaded.recipe
        own = keys(recipe, stages)
        taken = shared(own, before)
        left = [stage for stage in stages if stage.name not in taken]
        found.append(Priced(variant, tuple(lines(recipe, left)), tuple(taken), own))
        before |= set(own.values())
    return found


def within(planned: Sequence[Priced], budget_usd: float | None) -> list[Priced]:
    """Return the variants whose price, added up in order, stays within the budget. One that does
    not fit is left out, and a cheaper one after it may still fit."""
    if budget_usd is None:
        return list(planned)
    found, spent, paid = [], 0.0, set[str]()
    for each in planned:
        usd = each.usd or 0.0
        # What a variant reuses must be computed by one that runs.
        if spent + usd <= budget_usd and all(each.keys[stage] in paid for stage in each.shared):
            found.append(each)
            spent += usd
            paid |= set(each.keys.values())
    return found


def plan_table(sweep: Sweep, planned: Sequence[Priced]) -> RenderableType:
    """Return the prices for a terminal, with the sum of the whole sweep."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    everything = [line for each in planned for line in each.lines]
    grid = Table(
        box=None, pad_edge=False, header_style="bold", footer_style="bold", show_footer=True
    )
    grid.add_column("variant", "all", style="bold", no_wrap=True)
    for title, footer in zip(_TITLES, _cells(everything), strict=True):
        grid.add_column(title, footer, justify="right", no_wrap=True)
    grid.add_column("takes over", "")
    kept = within(planned, sweep.budget_usd)
    for each in planned:
        over = "" if each in kept else " (over the budget)"
        takes = Text(", ".join(each.shared) + over)
        grid.add_row(Text(each.variant.name), *_cells(each.lines), takes)
    parts: list[RenderableType] = [Text(f"Plan of the sweep {sweep.name}", style="bold"), grid]
    parts.append(Text(_NOTE, style="dim"))
    if sweep.budget_usd is not None:
        usd = total(each.usd for each in kept) or 0.0
        parts.append(
            Text(
                f"budget: ${sweep.budget_usd:,.0f}; {len(kept)} of {len(planned)} variants fit, "
                f"for ${usd:,.0f}"
            )
        )
    return Group(*parts)


_TITLES = ("calls", "tokens", "GPU-h", "GPU $", "API $")
_NOTE = (
    "takes over: stages that a variant above computes; they are counted there. Benchmark answers "
    "of the same model are asked once, but counted in each variant. For the parts of one variant: "
    "moaa recipe plan RECIPE --set …"
)


def _cells(planned: Sequence[Line]) -> list[str]:
    tokens = sum(e.prompt_tokens + e.completion_tokens + e.train_tokens for e in planned)
    amounts = (
        total(getattr(line, name) for line in planned)
        for name in ("gpu_hours", "gpu_usd", "cost_usd")
    )
    counts = [f"{sum(line.calls for line in planned):,}", f"{tokens / 1e6:,.1f} M"]
    return counts + ["" if value is None else f"{value:,.2f}" for value in amounts]
