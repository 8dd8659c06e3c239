"""Checks the version in production, with which the run's candidate will be compared."""

from __future__ import annotations

from moaa.errors import MoaaError
from moaa.preflight.finding import Finding
from moaa.recipe.schema import Recipe
from moaa.registry import production
from moaa.store import Store


def finding(recipe: Recipe, store: Store, name: str) -> Finding:
    """Return which version is in production under this name, and whether it can be measured."""
    fix = "restore the version, or promote another one: `moaa models` lists them"
    try:
        current = production.read(store, name).current
        if current is None:
            return Finding("production", True, f"no version of {name} yet: base is compared with")
        if not recipe.measures_production:
            said = f"{name} {current.version} since {current.since}; the recipe does not measure it"
            return Finding("production", True, said)
        production.opened(store, current.uri)
    except MoaaError as error:
        return Finding("production", False, str(error), fix)
    said = f"{name} {current.version} since {current.since}: it is measured beside the candidate"
    return Finding("production", True, said)
