"""What a killed stage left behind, and what it needs in all: an attempt asks the difference, and nothing else."""

from __future__ import annotations

from moaa.artifacts import Artifact
from moaa.journal import Journal
from moaa.recipe.schema import Recipe
from moaa.store import Store


def journaled(store: Store, uri: str) -> int:
    """Rows and answers that an attempt left behind, as the next one finds them."""
    journal = Journal(store, f"{uri}/journal")
    journal.open()
    return len(journal._replies) + sum(1 for _ in journal.finished)


def under_way(store: Store, stage: str) -> str | None:
    """The artifact of a stage that has journaled something: its address."""
    segments = [uri for uri, _ in store.list(f"{store.root}/{stage}") if "/journal/" in uri]
    return segments[0].split("/journal/")[0] if segments else None


def calls_in_all(stage: str, recipe: Recipe, artifact: Artifact) -> int:
    """Calls that the stage needs when nothing is lost, from its result."""
    rows = list(artifact.rows())
    if stage == "sample":
        return len(rows)
    if stage == "generate":
        return sum(len(row["turns"]) for row in rows) * (len(recipe.generate.mixture.proposers) + 1)
    judgements = list(artifact.rows("judgements"))
    return len(judgements) * (1 + 2 * (len(recipe.label.judge.proposers) + 1))
