"""A run of all stages but the trainings, by the real stages against the tests' engine server.

    artifacts = run_stages(tmp_path, MemoryStore(), monkeypatch)      # by kind

Each table gets rows: some prompts are repeated, refused, cut, or lose a proposer on the way.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import Artifact, Draft, Output
from moaa.benchmarks.table import BENCHMARKS
from moaa.recipe.load import load_file
from tests.support.engine_answers import Body
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.spelling import Spelling

NO_BENCHMARKS = "evaluate.benchmarks={}"
"""The `--set` that leaves head to head alone of the demo's benchmarks."""
INPUTS = {
    "prompts": (),
    "generate": ("prompts",),
    "sample": ("prompts", "sft"),
    "label": ("samples",),
    "evaluate": ("prompts", "sft", "dpo"),
    "gate": ("scores",),
}
PROMPTS: list[dict[str, Any]] = [
    {"turns": ["Why is the sky blue?", "And red in the evening?"]},
    {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]},
    {"turns": ["Why is the sky blue?", "And red in the evening?"]},
    {"turns": ["one member refuses this"]},
    {"turns": ["all refuse this"]},
    {"turns": ["judges refuse this"]},
]


QUESTIONS: list[dict[str, Any]] = [
    {"question_id": 1, "category": "writing", "turns": ["Write a line on rain.", "Again."]},
    {"question_id": 2, "category": "math", "turns": ["What is 2 + 2?", "And times 3?"]},
    {"question_id": 2, "choices": [{"turns": ["4", "12"]}]},
]
PAIRS: list[dict[str, Any]] = [
    {
        "pair_id": f"pair-{number}",
        "source": "mmlu-pro-math",
        "question": f"What is {number} + {number}?",
        "response_model": "someone",
        "response_A": str(2 * number),
        "response_B": str(3 * number),
        "label": "A>B",
    }
    for number in range(1, 4)
]


def run_stages(
    folder: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Artifact]:
    """Run the stages; return their artifacts by kind. The preferences have the tables of two
    labellers: one that compares, one that scores."""
    sets = [
        "runtime.max_rejected_share=1",
        "generate.mixture.aggregator.sampling.max_tokens=4",
        "generate.cut_answers=keep",
        "gate={}",
        "publish={}",
    ]
    for name in ("sft", "preference", "evaluation"):
        rows = PROMPTS if name != "evaluation" else _other(PROMPTS)
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in rows))
        sets.append(f'prompts.{name}=[{{source: "{path}", name: "the {name} set"}}]')
    sets += [NO_BENCHMARKS, *benchmark_sets(folder)]
    monkeypatch.setitem(BENCHMARKS, "gsm8k", Spelling)
    for stage in ("sample", "evaluate"):
        monkeypatch.setattr(
            import_module(f"moaa.stages.{stage}"),
            "tuned",
            lambda target, model, artifact: (f"{model}+{artifact.manifest.stage}", target),
        )
    found = {name: _model(store, name) for name in ("sft", "dpo")}
    with EngineServer("smollm2", "smollm2+sft", "smollm2+dpo") as server:
        server.refuse = _refused
        sets.append(f"models.smollm2.endpoint={{url: '{server.url}'}}")
        recipe = load_file(DEMO, sets).recipe
        for name, inputs in INPUTS.items():
            stage = getattr(import_module(f"moaa.stages.{name}"), name)
            manifest, *_ = stage.run(recipe, store, {each: found[each] for each in inputs})
            found[manifest.kind] = Artifact(store, manifest)
        for kind in ("answers", "judgements"):  # what evaluate keeps for later evaluations
            below = f"{store.root}/evaluation/{kind}/"
            made = [uri for uri, _ in store.list(below) if uri.endswith("/manifest.json")]
            found[kind] = Artifact.open(store, made[0].removesuffix("/manifest.json"))
        scored, *_ = import_module("moaa.stages.label").label.run(
            load_file(DEMO, [*sets, "label.labeller=random"]).recipe, store, found
        )
    tables = dict.fromkeys(found["preferences"].manifest.rows, found["preferences"])
    tables["scores"] = Artifact(store, scored)
    with Output(store, f"{store.root}/label/both", "preferences") as out:
        for name, artifact in tables.items():
            for row in artifact.rows(name):
                out.write(row, table=name)
        both = out.commit(Draft(stage="label", name="test", fingerprint="both"))
    return {**found, "preferences": Artifact(store, both)}


def benchmark_sets(folder: Path) -> list[str]:
    """The `--set`s of benchmarks with questions of our own in this folder."""
    tables: dict[str, list[dict[str, Any]]] = {
        "mt_bench": QUESTIONS,
        "judge_bench": PAIRS,
        "gsm8k": [{"question": "WHY?"}, {"question": "how?"}],
    }
    for name, rows in tables.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return [
        f'evaluate.benchmarks.{name}={{data: [{{source: "{folder}/{name}.jsonl"}}]}}'
        for name in tables
    ]


def _other(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prompts that share nothing with these, or they would be removed as contaminated."""
    text = json.dumps(rows).replace("sky", "sea").replace("this", "that").replace("Hello", "Bye")
    return list(json.loads(text.replace("evening", "morning")))


def _model(store: Any, name: str) -> Artifact:
    with Output(store, f"{store.root}/{name}/made", "model") as out:
        return Artifact(store, out.commit(Draft(stage=name, name="test", fingerprint=name)))


def _refused(body: Body) -> bool:
    said = body["messages"][-1]["content"]
    persona = body["messages"][0]["content"]
    if "one member refuses" in said:
        return "lively" in persona or "strict" in persona
    if "judges refuse" in said:
        return not said.startswith("judges refuse")
    return "all refuse" in said
