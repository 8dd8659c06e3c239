"""Decides whether there is anything to retrain, by comparing the inputs with production's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moaa.errors import MoaaError
from moaa.progress.messages import log
from moaa.recipe.load import text_of
from moaa.recipe.schema import Recipe
from moaa.registry import production
from moaa.registry.production import Production, ProductionEntry
from moaa.retrain import inputs, progress
from moaa.retrain.inputs import Compared, Inputs
from moaa.retrain.outcome import RetrainOutcome
from moaa.retrain.progress import Begun
from moaa.store import Store


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of the comparison."""

    production: ProductionEntry | None
    inputs: tuple[Compared, ...]
    texts: tuple[str, str]
    """The recipe of the version in production, and the recipe now."""
    settled: RetrainOutcome | None
    """The outcome, if there is nothing to do."""


def compare(recipe: Recipe, name: str, now: dict[str, str], store: Store) -> Comparison:
    """Compare the inputs with those of the version in production.

    There is nothing to do if they are the same. There is also nothing to do if they led to an
    earlier version that was published, promoted, or taken out of production by a roll-back.
    """
    pointer = production.read(store, name)
    entry = pointer.current
    before, text = _made_from(entry, store) if entry else ({}, "")
    settled = _settled(recipe, pointer, before, now, store)
    found = tuple(inputs.compared(before, now))
    return Comparison(entry, found, (text, text_of(recipe)), settled)


def _settled(
    recipe: Recipe, pointer: Production, before: Inputs, now: dict[str, str], store: Store
) -> RetrainOutcome | None:
    entry, name = pointer.current, pointer.name
    begun = progress.read(store, name)
    ended = begun if begun and begun.inputs == now else None
    # Its first rounds may have put a version into production before it was killed or failed.
    goes_on = recipe.rounds.n > 1 and ended is not None and ended.state in ("", "failed")
    if entry and before and inputs.same(before, now) and not goes_on:
        return RetrainOutcome(
            "nothing new",
            f"no input has changed since version {entry.version}, in production since "
            f"{entry.since}: {_names(now)}",
        )
    for gone in inputs.left(pointer):
        if _came_to(ended, gone) or inputs.same(_made_from(gone, store)[0], now):
            return RetrainOutcome("nothing new", _was_left(pointer, gone))
    if ended and ended.state == "published":
        version = ended.version.get("version", "")
        return RetrainOutcome(
            "nothing new",
            f"run {ended.run} published version {version} from the same inputs. To put it into "
            f"production: moaa promote {name} {version}",
        )
    if ended and ended.state == "promoted" and entry and _came_to(ended, entry):
        return RetrainOutcome(
            "nothing new",
            f"run {ended.run} made version {entry.version} from the same inputs; it is in "
            f"production: {_names(now)}",
        )
    return None


def _made_from(entry: ProductionEntry, store: Store) -> tuple[dict[str, str], str]:
    """Return the inputs of a version and its recipe;
    nothing, with a warning, if they are not known."""
    try:
        return inputs.of_version(entry, store)
    except MoaaError as error:
        log.warning(f"the inputs could not be compared: {error}")
        return {}, ""


def _came_to(ended: Begun | None, entry: ProductionEntry) -> bool:
    return ended is not None and ended.version.get("version") == entry.version


def _was_left(pointer: Production, gone: ProductionEntry) -> str:
    """Return why a version that these inputs lead to is not tried again."""
    history = pointer.history
    after = history[next(n for n, entry in enumerate(history) if entry is gone) - 1]
    return (
        f"these inputs lead to version {gone.version}, which was taken out of production at "
        f"{after.since}: {after.why}. It is not tried again until an input changes. To put it "
        f"back: moaa promote {pointer.name} {gone.version}"
    )


def _names(now: Iterable[str]) -> str:
    return f"compared were {', '.join(now)}"
