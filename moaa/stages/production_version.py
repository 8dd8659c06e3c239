"""The version in production as a contestant: what a candidate must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moaa.artifacts import Artifact
from moaa.recipe.evaluation import PRODUCTION
from moaa.recipe.schema import Recipe
from moaa.registry import production
from moaa.store import Store


@dataclass(frozen=True, slots=True)
class ProductionVersion:
    """A version, and the result of the training that it was copied from."""

    uri: str
    artifact: Artifact
    trainings: tuple[str, ...]
    """The fingerprints of that result, and of the winners of the rounds before it."""

    @property
    def model(self) -> str:
        """Return the fingerprint of that result."""
        return self.trainings[0]


def content(recipe: Recipe, store: Store, inputs: Mapping[str, Artifact]) -> dict[str, str]:
    """Return the address of the version that the run's candidate must beat, for the fingerprint of
    the evaluation; empty if there is none.

    After a repeated run the candidate itself, or what later rounds made from it, may already be in
    production. Then it is the version before these, so that the repeated run finds the same
    evaluation and the same decision. Raises MoaaError if the version in production does not exist.
    """
    if not recipe.measures_production:
        return {}
    assert recipe.gate
    assert recipe.publishes_as
    candidate = inputs.get(recipe.gate.candidate)
    if candidate is None:  # the run measures only models of the recipe
        return {}
    for entry in production.read(store, recipe.publishes_as).history:
        if candidate.fingerprint not in opened(store, entry.uri).trainings:
            return {PRODUCTION: entry.uri}
    return {}


def opened(store: Store, uri: str) -> ProductionVersion:
    """Return a version that is, or was, in production. Raises MoaaError if it does not exist."""
    artifact = production.opened(store, uri)
    facts = artifact.manifest.facts
    model = facts.get("model", artifact.fingerprint)
    return ProductionVersion(uri, artifact, (model, *facts.get("winners", ())))
