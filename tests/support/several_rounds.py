"""Rounds of self-improvement without models: the real stages sft, dpo and publish, and a launcher
that trains nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest

from moaa.artifacts import Artifact, Draft, Output, Parent
from moaa.ledger import Ledger
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from moaa.registry import Version
from moaa.stages.dpo import dpo
from moaa.stages.publish import publish
from moaa.stages.rounds import next_of
from moaa.stages.sft import sft
from moaa.train import launch
from moaa.train.job import Launch
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.publishing import inputs

OF_THREE = ("gate={}", "publish={name: aligned}", "rounds=3")


class Rounds:
    """A run of rounds; in the k-th each training reads k rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *sets: str) -> None:
        self.store = MemoryStore()
        self.recipe: Recipe = load_file(DEMO, [*OF_THREE, *sets]).recipe
        self.winners: list[Artifact] = []
        """The model of each round."""
        monkeypatch.setattr(launch, "run", _trained)

    def train(self) -> dict[str, Artifact]:
        """Make the next round's inputs of publish, and let the following round begin."""
        store, recipe = self.store, self.recipe
        number = recipe.rounds.round
        data = self._made("generate", "sft-data", {}, rows=number)
        pairs = self._made("label", "preferences", {}, rows=number)
        made = {"sft": Artifact(store, sft.run(recipe, store, {"data": data})[0])}
        given = {"sft": made["sft"], "preferences": pairs}
        made["dpo"] = Artifact(store, dpo.run(recipe, store, given)[0])
        like = inputs(MemoryStore())
        made["scores"] = self._made("evaluate", "scores", made, like["scores"].manifest.facts)
        scores = {"scores": made["scores"]}
        made["decision"] = self._made("gate", "decision", scores, like["decision"].manifest.facts)
        self.winners.append(made["dpo"])
        self.recipe = next_of(recipe, made["decision"].manifest, store) or recipe
        return made

    def publish(self) -> Version:
        """Make a round, and publish its winner."""
        recipe = self.recipe
        facts = publish.run(recipe, self.store, self.train())[0].facts
        return Version(**facts["published"])

    def _made(
        self,
        stage: str,
        kind: str,
        parents: Mapping[str, Artifact],
        facts: Mapping[str, Any] | None = None,
        rows: int = 0,
    ) -> Artifact:
        fingerprint = f"round{self.recipe.rounds.round}"
        with Output(self.store, f"{self.store.root}/{stage}/{fingerprint}", kind) as out:
            for row in range(rows):
                out.write({"id": str(row)})
            of = [Parent.of(name, each.manifest) for name, each in parents.items()]
            draft = Draft(stage=stage, name="n", fingerprint=fingerprint, parents=of,
                          facts=dict(facts or {}))  # fmt: skip
            return Artifact(self.store, out.commit(draft))


def _trained(launched: Launch, store: MemoryStore, ledger: Ledger, progress: object) -> Any:
    """What a training returns: one file, another one for other data or another base."""
    job = launched.job
    weights = f"{job.base} on {job.data}".encode()
    store.put(f"{job.output}/model-1/model.safetensors", weights)
    digest = hashlib.sha256(weights).hexdigest()
    name = "model.safetensors"
    file = {"name": name, "size": len(weights), "sha256": digest, "key": f"model-1/{name}"}
    return {"files": [file], "facts": {"rows": 1, "dropped": {}}}
