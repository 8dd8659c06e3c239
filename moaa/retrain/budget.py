"""The most that a retraining costs by its plan, and whether that is within a budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moaa.declaration import Declaration
from moaa.errors import MoaaError
from moaa.plan import Line, of_rounds, uncounted
from moaa.plan.lines import dollars, total
from moaa.recipe.schema import Recipe


class OverBudget(MoaaError):
    """The plan is above the budget, or it is not known whether it is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole run's plan. Stages with existing results cost nothing of it."""

    lines: tuple[Line, ...]
    unpriced: tuple[str, ...]
    """Models whose dollars cannot be computed from the recipe."""
    unrated: tuple[str, ...]
    """Models whose GPU-hours cannot be computed from the recipe."""
    uncounted: tuple[str, ...] = ()
    """A sentence for each source of prompts that is counted as empty."""

    @property
    def usd(self) -> float | None:
        """Return the dollars; None if nothing is known."""
        return total(map(dollars, self.lines))

    @property
    def gpu_hours(self) -> float | None:
        """Return the GPU-hours; None if nothing is known."""
        return total(line.gpu_hours for line in self.lines)


def plan_of(recipe: Recipe, stages: Iterable[Declaration]) -> Plan:
    """Return the plan of these stages."""
    found = tuple(line for each in of_rounds(recipe, tuple(stages)) for line in each)
    paid = [line for line in found if line.calls or line.steps]
    ours = [line for line in paid if not _is_endpoint(recipe, line.model)]
    return Plan(
        found,
        tuple(dict.fromkeys(each.model for each in paid if dollars(each) is None)),
        tuple(dict.fromkeys(each.model for each in ours if each.gpu_hours is None)),
        tuple(uncounted(recipe)),
    )


def check(plan: Plan, usd: float | None, gpu_hours: float | None) -> None:
    """Check the plan. Raises OverBudget if it is above a budget, or cannot be compared with it."""
    for limit, value, unknown, option, field in (
        (usd, plan.usd, plan.unpriced, "--budget-usd", "price or rate"),
        (gpu_hours, plan.gpu_hours, plan.unrated, "--budget-gpu-hours", "rate"),
    ):
        if limit is None:
            continue
        if plan.uncounted:
            raise OverBudget(f"{option} {limit:g} cannot be kept: {'; '.join(plan.uncounted)}.")
        if unknown:
            raise OverBudget(
                f"{option} {limit:g} cannot be kept: the plan does not know what "
                f"{', '.join(unknown)} takes. Set models.*.{field} in the recipe, or leave out "
                f"{option}."
            )
        if value is not None and value > limit:
            unit = "dollars" if option == "--budget-usd" else "GPU-hours"
            raise OverBudget(
                f"the plan is {value:,.2f} {unit}, above {option} {limit:g}. It counts the whole "
                "run; `moaa recipe plan` shows its parts. Ask for fewer prompts, or raise the "
                "budget."
            )


def _is_endpoint(recipe: Recipe, name: str) -> bool:
    return name in recipe.models and bool(recipe.models[name].endpoint)
