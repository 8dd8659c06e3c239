"""What a model is made from, each input as a digest; and what has changed since production."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from moaa.artifacts import Artifact
from moaa.declaration import Declaration
from moaa.errors import ArtifactError, MoaaError
from moaa.recipe.evaluation import PRODUCTION
from moaa.recipe.load import text_of
from moaa.recipe.rounds import start_of
from moaa.recipe.schema import Recipe
from moaa.registry.lineage import LINEAGE, lineage_of
from moaa.registry.production import Production, ProductionEntry
from moaa.store import Missing, Store

RECIPE: Final = "recipe"
CODE: Final = "code (moaa)"
Inputs = Mapping[str, str]
"""Digests by the names of the inputs: the recipe, the code, each prompt source, each model."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One input, for another version and now. Empty: it does not exist."""

    name: str
    before: str
    now: str

    @property
    def changed(self) -> bool:
        """Return whether it is different now. An input that cannot be read from here does not count
        as changed: a folder of weights that only the cluster has."""
        return bool(self.now) and self.before != self.now


def current(recipe: Recipe, stages: Iterable[Declaration], store: Store) -> dict[str, str]:
    """Return the current inputs: what the recipe's stages would read.

    Raises an error for a source that cannot be read: it never counts as unchanged.
    """
    found = {RECIPE: _digest(text_of(recipe)), CODE: version("moaa")}
    for declared in stages:
        if declared.outputs:
            module, _, name = declared.entry.partition(":")
            made = getattr(importlib.import_module(module), name)
            found |= _named(made.content(recipe, store))
    return found


def of_version(entry: ProductionEntry, store: Store) -> tuple[dict[str, str], str]:
    """Return the inputs of a published version, and the text of its run's recipe: that of the first
    round, if there were several.

    Raises MoaaError if the version has no readable lineage.
    """
    try:
        lineage = lineage_of(Artifact.open(store, entry.uri))
        recipe = _of_first_round(lineage, entry, store)["recipe"]
        text = str(recipe["text"])
        found = {RECIPE: str(recipe["digest"]), CODE: str(lineage["code"]["moaa"])}
        for artifact in lineage["artifacts"]:
            found |= _named(artifact["content"])
    except (ArtifactError, Missing, KeyError, TypeError) as error:
        raise MoaaError(
            f"{entry.uri}/{LINEAGE} does not say what version {entry.version} was made from: "
            f"{error}"
        ) from None
    return found, text


def _of_first_round(
    lineage: Mapping[str, Any], entry: ProductionEntry, store: Store
) -> Mapping[str, Any]:
    """Return the lineage of the first round's winner; this one if that was not published."""
    first = lineage["rounds"][0]["version"] if "rounds" in lineage else None
    if first in (None, entry.uri):
        return lineage
    return lineage_of(Artifact.open(store, first))


def compared(before: Inputs, now: Inputs) -> list[Compared]:
    """Return all inputs of both, in the order of `now`."""
    names = [*now, *(name for name in before if name not in now)]
    return [Compared(name, before.get(name, ""), now.get(name, "")) for name in names]


def same(before: Inputs, now: Inputs) -> bool:
    """Return whether no input has changed. Without anything to compare with, all have."""
    return bool(before) and not any(each.changed for each in compared(before, now))


def left(production: Production) -> Sequence[ProductionEntry]:
    """Return the versions that a roll-back took out of production, the newest first. After each of
    them came a version that had been in production before it."""
    history = production.history
    return [
        entry
        for number, entry in enumerate(history[1:], 1)
        if history[number - 1].uri in {older.uri for older in history[number + 1 :]}
    ]


def _named(content: Mapping[str, str]) -> dict[str, str]:
    """Return the contents of sources by readable names. The version in production, which an
    evaluation reads too, is not an input: it changes with each promotion. Winners of earlier rounds
    are not inputs either: the run made them."""
    of_others = ("models.", "benchmarks.")
    return {
        name if name.startswith(of_others) else f"prompts: {name}": held
        for name, held in content.items()
        if name != PRODUCTION and not (name.startswith("models.") and start_of(name) != name)
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
