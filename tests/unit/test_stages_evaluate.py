"""The evaluate stage: which answers are judged against which."""

from __future__ import annotations

import importlib

import pytest
from aiohttp import web

from moaa.artifacts import Artifact, Draft, Output
from moaa.recipe.load import load_file
from tests.support.engine_server import Body, EngineServer, Fault, answer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

MODELS = ("smollm2", "smollm2+sft", "smollm2+dpo")
QUESTIONS = ("Why is the sky blue?", "What is the sea made of?")


def says_nothing(question: str) -> Fault:
    async def fault(request: web.Request, body: Body) -> web.StreamResponse | None:
        if body["messages"][-1]["content"] != question:
            return None
        empty = answer(body)
        empty["choices"][0]["message"]["content"] = ""
        return web.json_response(empty)

    return fault


def evaluated(server: EngineServer, monkeypatch: pytest.MonkeyPatch, *sets: str) -> Artifact:
    """The stage's result for two prompts. What was trained is served where the target is."""
    stage = importlib.import_module("moaa.stages.evaluate")
    monkeypatch.setattr(
        stage, "tuned", lambda target, name, artifact: (f"{name}+{artifact.manifest.stage}", target)
    )
    store = MemoryStore()

    def artifact(name: str) -> Artifact:
        with Output(store, f"{store.root}/{name}/x", "any") as out:
            for number, question in enumerate(QUESTIONS if name == "prompts" else ()):
                out.write(
                    {"id": str(number), "source": "s", "system": None, "turns": [question]},
                    table="evaluation",
                )
            return Artifact(store, out.commit(Draft(stage=name, name="n", fingerprint=name)))

    recipe = load_file(DEMO, [f"models.smollm2.endpoint={{url: '{server.url}'}}", *sets]).recipe
    manifest, _ = stage.evaluate.run(
        recipe, store, {name: artifact(name) for name in ("prompts", "sft", "dpo")}
    )
    return Artifact(store, manifest)


@pytest.mark.parametrize("who", MODELS)
def test_an_empty_answer_is_judged_whoever_gave_it(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EngineServer(*MODELS) as server:
        server.fail(says_nothing(QUESTIONS[0]), model=who, times=1000)
        found = evaluated(server, monkeypatch)
    judged = [(row["id"], row["model_a"]) for row in found.rows("judgements")]
    assert judged == [(id, who) for id in "01" for who in ("sft", "dpo", "dpo")]
    assert [rate["n"] for rate in found.manifest.facts["win_rates"]] == [2, 2, 2]
    assert sum(not row["text"] for row in found.rows("answers")) == 1


def test_two_empty_answers_are_a_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    with EngineServer(*MODELS) as server:
        for who in MODELS[:2]:
            server.fail(says_nothing(QUESTIONS[0]), model=who, times=1000)
        found = evaluated(server, monkeypatch)
    assert {row["model_a"]: row["p"] for row in found.rows("judgements") if row["id"] == "0"}[
        "sft"
    ] == 0.5


def test_a_call_that_failed_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with EngineServer(*MODELS) as server:
        server.refuse = lambda body: (
            body["model"] == "smollm2+dpo" and body["messages"][-1]["content"] == QUESTIONS[0]
        )
        found = evaluated(server, monkeypatch, "runtime.max_rejected_share=0.5")
    judged = [(row["id"], row["model_a"], row["model_b"]) for row in found.rows("judgements")]
    assert judged == [
        ("0", "sft", "base"),
        ("1", "sft", "base"),
        ("1", "dpo", "base"),
        ("1", "dpo", "sft"),
    ]
    lost = [(row["id"], row["what"], row["who"], row["reason"]) for row in found.rows("rejected")]
    assert lost == [
        ("0", "answers", "dpo", "bad request"),
        ("0", "judgements", "dpo against base", "no answer of dpo"),
        ("0", "judgements", "dpo against sft", "no answer of dpo"),
    ]
