"""What a killed stage left behind, and what it needs in all, in calls: an attempt asks the
difference, and nothing else."""

from __future__ import annotations

from math import comb
from typing import Any

from moaa.artifacts import Artifact
from moaa.journal import S3Journal
from moaa.recipe.schema import Recipe
from moaa.stages.sample import TOO_FEW
from moaa.store import Store


def journaled(store: Store, uri: str, stage: str, recipe: Recipe) -> int:
    """Calls whose answers an attempt left behind, as the next one finds them: those behind its
    finished rows, and the others.

    Of a row that was rejected for want of answers nothing is known, and nothing is counted.
    """
    journal = S3Journal(store, f"{uri}/journal")
    journal.open()
    journal.close()
    records = journal.finished.values()
    rows = sum(_calls_behind(record["row"], stage, recipe) for record in records if "row" in record)
    merged = sum(
        record["rejected"]["reason"] == TOO_FEW for record in records if "rejected" in record
    )
    return rows + merged + len(journal._replies)


def under_way(store: Store, stage: str) -> str | None:
    """The artifact of a stage that has journaled something: its address."""
    segments = [uri for uri, _ in store.list(f"{store.root}/{stage}") if "/journal/" in uri]
    return segments[0].split("/journal/")[0] if segments else None


def calls_in_all(stage: str, recipe: Recipe, artifact: Artifact) -> int:
    """Calls that the stage needs when nothing is lost, from its result; of a rejected row the most
    that it can have taken."""
    rejected = list(artifact.rows("rejected"))
    if stage == "label":
        pairs = len(list(artifact.rows("judgements"))) + sum(
            comb(len(row["samples"]), 2) for row in rejected
        )
        return pairs * _calls_of_a_pair(recipe)
    turns = sum(len(row["turns"]) for row in rejected)
    return turns * _calls_of_a_turn(stage, recipe) + sum(
        _calls_behind(row, stage, recipe) for row in artifact.rows()
    )


def _calls_behind(row: dict[str, Any], stage: str, recipe: Recipe) -> int:
    """Calls that it took to make a row, as a stage's journal holds it."""
    if stage == "label":
        return len(row["judgements"]) * _calls_of_a_pair(recipe)
    return sum(message["role"] == "user" for message in row["messages"]) * _calls_of_a_turn(
        stage, recipe
    )


def _calls_of_a_turn(stage: str, recipe: Recipe) -> int:
    mixture = recipe.generate.mixture
    return 1 if stage == "sample" else (mixture.layers - 1) * len(mixture.proposers) + 1


def _calls_of_a_pair(recipe: Recipe) -> int:
    judge = recipe.label.judge
    return {"per-pair": 1, "per-order": 2, "all": 0}[judge.criteria] + 2 * (
        len(judge.proposers) + 1
    )
