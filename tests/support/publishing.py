"""What the stage publish gets, without a run: a decision, scores, trained models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from moaa.artifacts import Artifact, Draft, File, Output
from tests.support.memory_store import MemoryStore

WEIGHTS = b"weights" * 100


def inputs(
    store: MemoryStore, verdict: str = "promote", model: Mapping[str, bytes] | None = None
) -> dict[str, Artifact]:
    """The inputs by name. `model`: the files of the DPO model."""
    decision = {
        "verdict": verdict,
        "candidate": "dpo",
        "against": "base",
        "why": "because",
        "power": "With 500 prompts this gate can see 5 points.",
        "findings": [
            {
                "rule": "wins",
                "outcome": verdict if verdict == "undecided" else "pass",
                "about": "dpo wins",
                "estimate": {"value": 0.6, "low": 0.55, "high": 0.65, "n": 500},
                "limit": 0.5,
                "needed": None,
            }
        ],
    }
    score = {
        "entrant": "dpo",
        "against": "base",
        "metric": "win rate",
        "main": True,
        "value": 0.6,
        "low": 0.55,
        "high": 0.65,
        "n": 500,
    }
    worse = {
        "metric": "right difference",
        "main": False,
        "value": -0.01,
        "low": -0.03,
        "high": 0.01,
    }
    benchmarks = {
        "head_to_head": _benchmark("Head to head", [score], judge="a"),
        "gsm8k": _benchmark("GSM8K", [score, score | worse]),
        "ifbench": _benchmark("IFBench", [], failed="no data"),
    }
    return {
        "decision": _artifact(store, "gate", "decision", {"decision": decision}),
        "scores": _artifact(store, "evaluate", "scores", {"benchmarks": benchmarks}),
        "sft": _model(store, "sft"),
        "dpo": _model(store, "dpo", model),
    }


def _benchmark(
    title: str, scores: list[dict[str, Any]], judge: str = "", failed: str = ""
) -> dict[str, Any]:
    return {"title": title, "judge": judge, "scores": scores, "failed": failed}


def _artifact(store: MemoryStore, stage: str, kind: str, facts: dict[str, Any]) -> Artifact:
    with Output(store, f"{store.root}/{stage}/x", kind) as out:
        draft = Draft(stage=stage, name="demo", fingerprint="x", facts=facts)
        return Artifact(store, out.commit(draft))


def _model(store: MemoryStore, stage: str, given: Mapping[str, bytes] | None = None) -> Artifact:
    uri = f"{store.root}/{stage}/x"
    files = []
    some = {"config.json": b"{}", "model.safetensors": stage.encode() + WEIGHTS}
    for name, data in (given or some).items():
        store.put(f"{uri}/model-1/{name}", data)
        digest = hashlib.sha256(data).hexdigest()
        files.append(File(name=name, size=len(data), sha256=digest, key=f"model-1/{name}"))
    with Output(store, uri, "model") as out:
        out.adopt(files)
        return Artifact(store, out.commit(Draft(stage=stage, name="demo", fingerprint="x")))
