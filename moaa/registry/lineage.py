"""The data, models and settings that a model was made from, as one document."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from moaa.artifacts import Artifact, Manifest, Parent
from moaa.errors import ArtifactError
from moaa.recipe.schema import Recipe
from moaa.registry.code import code
from moaa.registry.licences import Findings
from moaa.store import Missing
from moaa.store.bytes import object_of

LINEAGE: Final = "lineage.json"
"""The lineage of a version, in its folder."""
OF_MODEL: Final = "models."
"""The start of the names of parents that are not inputs: `models.llama+round-1`, the winner of the
round before."""


def lineage(
    recipe: Recipe,
    text: str,
    model: Artifact,
    scores: Artifact,
    decision: Mapping[str, Any],
    licences: Findings,
    rounds: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the document `lineage.json` of a version. `text` is the recipe as it was run.

    recipe     its name, digest (sha256 of `text`) and text
    code       the version and commit of moaa; of a run on a cluster its images with their digests
    rounds     the rounds that made the model, as `moaa.registry.rounds` finds them
    data       who wrote the SFT data and ranked the preferences, and how many rows there are: of
               the last round
    artifacts  the model's, the scores', and all that they were made from, newest first
    system_role  whether the model was trained with system messages of their own
    models     the recipe's models that took part, with source, revision and licence
    scores     the main number of each benchmark, with its interval
    decision   what the gate decided
    """
    uses = [
        {
            **asdict(use),
            "source": recipe.models[use.model].source,
            "revision": recipe.models[use.model].revision,
        }
        for use in licences.uses
    ]
    benchmarks: Mapping[str, Any] = scores.manifest.facts["benchmarks"]
    return {
        "recipe": {
            "name": recipe.name,
            "digest": hashlib.sha256(text.encode()).hexdigest(),
            "text": text,
        },
        "code": code(recipe.runtime),
        "rounds": [dict(each) for each in rounds],
        "artifacts": [_entry(each.manifest) for each in ancestors(model, scores)],
        "data": _data(recipe, model),
        "system_role": model.manifest.facts.get("system_role", True),
        "models": uses,
        "prompts": [source.source for source in (*recipe.prompts.sft, *recipe.prompts.preference)],
        "scores": {
            name: {
                "title": each["title"],
                "judge": each["judge"],
                "main": [score for score in each["scores"] if score["main"]],
                "differences": [
                    score for score in each["scores"] if score["metric"].endswith(" difference")
                ],
                "failed": each["failed"],
            }
            for name, each in benchmarks.items()
        },
        "decision": dict(decision),
    }


def lineage_of(version: Artifact) -> dict[str, Any]:
    """Return the lineage of a version.

    Raises ArtifactError if it has none, or if that is not as it was published.
    """
    try:
        return object_of(version.text(LINEAGE))
    except (Missing, ValueError) as error:
        raise ArtifactError(f"{version.uri} has no lineage: {error}") from None


def _data(recipe: Recipe, model: Artifact) -> dict[str, Any]:
    generate = recipe.generate
    return {
        "source": generate.source,
        "mixture": generate.mixture.model_dump(mode="json", exclude_defaults=True)
        if generate.mixes
        else None,
        "writers": [recipe.models[each.model].published_name for each in generate.writers],
        "labeller": recipe.label.labeller,
        **rows_of(model),
    }


def rows_of(model: Artifact) -> dict[str, int]:
    """Return how many conversations and pairs a model was trained on, in its own round."""
    rows = {each.manifest.kind: each.manifest.rows for each in _of_round(model)}
    return {
        "conversations": rows.get("sft-data", {}).get("data", 0),
        "pairs": rows.get("preferences", {}).get("data", 0),
    }


def before(model: Artifact) -> Artifact | None:
    """Return the winner of the round before, which this model was trained from;
    None in the first round."""
    trainings = (each for each in _of_round(model) if each.manifest.stage == "sft")
    winners = (
        parent
        for each in trainings
        for parent in each.manifest.parents
        if parent.name.startswith(OF_MODEL)
    )
    return next((_opened(model, parent) for parent in winners), None)


def ancestors(*roots: Artifact) -> list[Artifact]:
    """Return these artifacts and everything that they were made from, each once, newest first."""
    return list(_walk(roots, of_earlier_rounds=True))


def _of_round(model: Artifact) -> Iterator[Artifact]:
    """Yield a model and what it was made from, without winners of earlier rounds."""
    return _walk([model], of_earlier_rounds=False)


def _walk(roots: Sequence[Artifact], *, of_earlier_rounds: bool) -> Iterator[Artifact]:
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        artifact = waiting.pop(0)
        if artifact.manifest.uri not in seen:
            seen.add(artifact.manifest.uri)
            yield artifact
            waiting += [
                _opened(artifact, parent)
                for parent in artifact.manifest.parents
                if of_earlier_rounds or not parent.name.startswith(OF_MODEL)
            ]


def _opened(artifact: Artifact, parent: Parent) -> Artifact:
    return Artifact.open(artifact.store, parent.uri, parent.fingerprint)


def _entry(manifest: Manifest) -> dict[str, Any]:
    return {
        "stage": manifest.stage,
        "kind": manifest.kind,
        "uri": manifest.uri,
        "fingerprint": manifest.fingerprint,
        "created": manifest.created,
        "rows": manifest.rows,
        "content": manifest.part.get("content", {}),
    }
