"""The rounds of self-improvement that made a model, from the first one to its own."""

from __future__ import annotations

from typing import Any

from moaa.artifacts import Artifact
from moaa.recipe.rounds import start_of
from moaa.recipe.schema import Recipe
from moaa.registry.lineage import before, rows_of
from moaa.registry.versions import Version, versions


def rounds(recipe: Recipe, model: Artifact, version: Version, run: str) -> list[dict[str, Any]]:
    """Return the rounds that made a model, the first one first; a run without rounds has one.

    round          its number, from 1
    run            the run whose records tell how it went; empty if nobody named it
    trained        the source of the model that was trained, and its `revision`; from the second
                   round on the artifact of the winner before
    artifact       the round's winner, and its `fingerprint`
    conversations  how many rows it was trained on in this round; and how many `pairs`
    version        the address of the winner's version; None if it was not published

    `version` is the version that the model itself becomes.
    """
    winners = [model]
    while earlier := before(winners[0]):
        winners.insert(0, earlier)
    published = _published(model, version) if len(winners) > 1 else {}
    published[model.fingerprint] = version.uri
    start = recipe.models[start_of(recipe.target)]
    sources = [start.source, *(winner.uri for winner in winners[:-1])]
    return [
        {
            "round": number,
            "run": run,
            "trained": source,
            "revision": start.revision if number == 1 else None,
            "artifact": winner.uri,
            "fingerprint": winner.fingerprint,
            **rows_of(winner),
            "version": published.get(winner.fingerprint),
        }
        for number, (source, winner) in enumerate(zip(sources, winners, strict=True), 1)
    ]


def _published(model: Artifact, version: Version) -> dict[str, str]:
    """Return the addresses of all versions of this name, by the training that each was copied from;
    of several the newest."""
    found = versions(model.store, version.name)
    return {
        each.manifest.facts["model"]: each.uri for each in found if "model" in each.manifest.facts
    }
