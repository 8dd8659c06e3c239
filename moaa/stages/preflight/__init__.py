"""Everything that would make a run fail later, looked at now: each finding says what is wrong and how to mend it.

finding   what a finding is
here      the store, secrets, prompts, models; engines and trainers of this machine
baked     whether the compiled pipeline and the run's recipe agree
"""

from __future__ import annotations

from dataclasses import asdict

from moaa import plan
from moaa.recipe.schema import Recipe
from moaa.stage import recorded, say
from moaa.stages.preflight import baked as compiled
from moaa.stages.preflight import here
from moaa.stages.preflight.finding import Finding, PreflightFailed, refuse
from moaa.store import Store

__all__ = ["Finding", "PreflightFailed", "findings", "main", "refuse"]


def findings(recipe: Recipe, store: Store, baked: str = "") -> list[Finding]:
    """All findings for this recipe; the checks go on after a failure, so that all is seen at once.

    `baked`: what the compiled pipeline took from its recipe, where this is a task of one. Other tasks then have images of
    their own, and nothing is said about the engines and trainers installed here.
    """
    found = list(here.findings(recipe, store, alone=not baked))
    if baked:
        found += compiled.agreement(recipe, baked)
    return found


def main(recipe: str, run_id: str, summary: str = "", baked: str = "") -> None:
    """Look, and fail with the table of what is not ok. The plan of calls and tokens goes into the record."""
    with recorded("preflight", recipe, run_id, summary) as (loaded, store, record):
        found = findings(loaded, store, baked)
        record["facts"] = {"findings": [asdict(f) for f in found], "plan": plan.as_rows(loaded), "prices": _prices(loaded)}
        refuse(found)
        record["status"] = "done"
        say(f"preflight: {len(found)} checks passed")


def _prices(recipe: Recipe) -> dict[str, dict[str, float]]:
    """Dollars per million tokens, of the models that state them: the report prices the tokens that were really used."""
    return {name: model.price.model_dump() for name, model in recipe.models.items() if model.price}
