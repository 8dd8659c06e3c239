"""An evaluation by the real stage, of a base and two trained models, against a test's server."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import pytest

from moaa.artifacts import Artifact, Draft, Output
from moaa.recipe.load import load_file
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.stage_run import NO_BENCHMARKS

MODELS = ("smollm2", "smollm2+sft", "smollm2+dpo")
QUESTIONS = ("Why is the sky blue?", "What is the sea made of?")


def evaluated(
    server: EngineServer,
    monkeypatch: pytest.MonkeyPatch,
    *sets: str,
    store: MemoryStore | None = None,
    questions: Sequence[str] = QUESTIONS,
) -> Artifact:
    """Return the stage's result for these prompts. What was trained is served as the target."""
    stage = importlib.import_module("moaa.stages.evaluate")
    monkeypatch.setattr(
        stage, "tuned", lambda target, name, artifact: (f"{name}+{artifact.manifest.stage}", target)
    )
    store = store or MemoryStore()

    def artifact(name: str) -> Artifact:
        with Output(store, f"{store.root}/{name}/x", "any") as out:
            for number, question in enumerate(questions if name == "prompts" else ()):
                out.write(
                    {"id": str(number), "source": "s", "system": None, "turns": [question]},
                    table="evaluation",
                )
            return Artifact(store, out.commit(Draft(stage=name, name="n", fingerprint=name)))

    recipe = load_file(
        DEMO, [f"models.smollm2.endpoint={{url: '{server.url}'}}", NO_BENCHMARKS, *sets]
    ).recipe
    manifest, _ = stage.evaluate.run(
        recipe, store, {name: artifact(name) for name in ("prompts", "sft", "dpo")}
    )
    return Artifact(store, manifest)
