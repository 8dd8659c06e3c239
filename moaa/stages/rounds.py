"""From a round's decision to the recipe of the next round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moaa.artifacts import Artifact, Manifest
from moaa.recipe.load import text_of
from moaa.recipe.next_round import follow
from moaa.recipe.schema import Recipe
from moaa.store import Store
from moaa.task import Task, keep


def next_of(recipe: Recipe, decided: Manifest, store: Store) -> Recipe | None:
    """Return the recipe of the round after this decision; None if nothing was won, or after the
    last round."""
    decision: Mapping[str, Any] = decided.facts["decision"]
    rounds = recipe.rounds
    if rounds.round == rounds.n or decision["verdict"] != "promote":
        return None
    scores = _parent(decided, "scores", store)
    winner = _parent(scores.manifest, decision["candidate"], store)
    trained = winner.manifest.facts.get("system_role", True)
    return follow(recipe, winner.uri, system_role=trained)


def kept_next(task: Task, decided: str) -> tuple[str, str]:
    """Return the verdict of a decision, and the address of the next round's recipe, which this
    writes; empty if there is no next round. `decided`: the decision's manifest as text."""
    manifest = Manifest.from_text(decided, "the gate's manifest")
    verdict: str = manifest.facts["decision"]["verdict"]
    recipe = task.load().recipe
    store = Store.of(recipe.store, reached=True)
    following = next_of(recipe, manifest, store)
    return verdict, keep(text_of(following), store) if following else ""


def _parent(manifest: Manifest, name: str, store: Store) -> Artifact:
    parent = next(each for each in manifest.parents if each.name == name)
    return Artifact.open(store, parent.uri, parent.fingerprint)
