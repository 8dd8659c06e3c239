"""What the stage publish gets, without a run: a decision, scores, trained models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from moaa.artifacts import Artifact, Draft, File, Output, Parent
from moaa.store import Store
from tests.support.memory_store import MemoryStore

WEIGHTS = b"weights" * 100
_ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
CONVERSATIONS: list[dict[str, Any]] = [
    {
        "id": str(number),
        "source": "mt_bench" if number else "ifbench",
        "messages": [*_ASKED, {"role": "assistant", "content": f"Because of {number}."}],
        "turns": [],
    }
    for number in range(3)
]
"""The last character of the first rejected answer is half a surrogate pair, as models write it."""
PAIRS: list[dict[str, Any]] = [
    {
        "id": str(number),
        "source": "mt_bench",
        "messages": _ASKED,
        "chosen": f"Better {number}.",
        "rejected": "Worse. \ud83d" if number == 0 else "Worse.",
        "margin": 2.0,
    }
    for number in range(2)
]


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
    conversations = _artifact(store, "generate", "sft-data", {}, CONVERSATIONS)
    pairs = _artifact(store, "label", "preferences", {}, PAIRS)
    sft = _model(store, "sft", parents=[conversations])
    return {
        "decision": _artifact(store, "gate", "decision", {"decision": decision}),
        "scores": _artifact(store, "evaluate", "scores", {"benchmarks": benchmarks}),
        "sft": sft,
        "dpo": _model(store, "dpo", model, parents=[pairs, sft]),
    }


def _benchmark(
    title: str, scores: list[dict[str, Any]], judge: str = "", failed: str = ""
) -> dict[str, Any]:
    return {"title": title, "judge": judge, "scores": scores, "failed": failed, "failures": {}}


def _artifact(
    store: Store,
    stage: str,
    kind: str,
    facts: dict[str, Any],
    rows: Sequence[dict[str, Any]] = (),
) -> Artifact:
    with Output(store, f"{store.root}/{stage}/x", kind) as out:
        for row in rows:
            out.write(row)
        draft = Draft(stage=stage, name="demo", fingerprint="x", facts=facts)
        return Artifact(store, out.commit(draft))


def _model(
    store: Store,
    stage: str,
    given: Mapping[str, bytes] | None = None,
    parents: Sequence[Artifact] = (),
    fingerprint: str = "x",
) -> Artifact:
    uri = f"{store.root}/{stage}/{fingerprint}"
    files = []
    some = {"config.json": b"{}", "model.safetensors": stage.encode() + WEIGHTS}
    for name, data in (given or some).items():
        store.put(f"{uri}/model-1/{name}", data)
        digest = hashlib.sha256(data).hexdigest()
        files.append(File(name=name, size=len(data), sha256=digest, key=f"model-1/{name}"))
    with Output(store, uri, "model") as out:
        out.adopt(files)
        made_from = [Parent.of(each.manifest.kind, each.manifest) for each in parents]
        draft = Draft(stage=stage, name="demo", fingerprint=fingerprint, parents=made_from)
        return Artifact(store, out.commit(draft))


def trained(store: Store, stage: str, number: int) -> Artifact:
    """A trained model of a few bytes; another `number` is another training."""
    files = {"config.json": b"{}", "model.safetensors": b"%d" % number}
    return _model(store, stage, files, fingerprint=str(number))


def evaluation(store: Store, number: int, won: int, prompts: int = 40) -> Artifact:
    """An evaluation in which dpo wins so many prompts against base, with all that a card shows."""
    with Output(store, f"{store.root}/evaluate/{number}", "scores") as out:
        for item in range(prompts):
            about = {"id": str(item), "benchmark": "head_to_head", "group": "s"}
            for model in ("base", "production", "dpo"):
                text = f"The answer of {model} to question {item}." + " More." * (item % 5)
                row = {"model": model, "turn": 1, "text": text, "tokens": 9}
                out.write({**about, **row, "messages": [], "finish_reason": "stop"}, "answers")
            p = 0.9 if item < won else 0.1
            pair = {"p": p, "orders": [{"verdict": verdict} for verdict in "AB"], "lost": []}
            for other in ("base", "production"):
                out.write(about | pair | {"model_a": "dpo", "model_b": other}, "judgements")
        head_to_head = _benchmark("Head to head", [], judge="another judge")
        return Artifact(
            store,
            out.commit(
                Draft(
                    stage="evaluate",
                    name="demo",
                    fingerprint=str(number),
                    facts={
                        "benchmarks": {"head_to_head": head_to_head},
                        "contestants": ["base", "dpo", "production"],
                    },
                )
            ),
        )
