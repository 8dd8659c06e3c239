"""The evaluate stage: which answers are judged against which."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from aiohttp import web

from moaa.artifacts import Artifact
from moaa.benchmarks.table import BENCHMARKS
from moaa.chat.pool import Endpoint
from moaa.recipe.load import load_file
from moaa.registry.canary import Canary
from moaa.sandbox.run import Sandbox
from tests.support.engine_answers import Body, answer
from tests.support.engine_server import EngineServer, Fault
from tests.support.evaluated import MODELS, QUESTIONS, evaluated
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.spelling import Spelling


def says_nothing(question: str) -> Fault:
    async def fault(request: web.Request, body: Body) -> web.StreamResponse | None:
        if body["messages"][-1]["content"] != question:
            return None
        empty = answer(body)
        empty["choices"][0]["message"]["content"] = ""
        return web.json_response(empty)

    return fault


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


def data(folder: Path, *rows: dict[str, str]) -> str:
    """The setting of a benchmark's data."""
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"{{data: [{{source: '{path}'}}]}}"


def marks(found: Artifact) -> dict[tuple[str, str], float]:
    scores = [row for row in found.rows("scores") if row["main"] and not row["subset"]]
    return {(row["benchmark"], row["entrant"]): row["value"] for row in scores}


def test_one_models_answers_never_serve_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The fault of a harness whose cache has no model in its key. One store, one journal."""
    monkeypatch.setitem(BENCHMARKS, "gsm8k", Spelling)
    settings = data(tmp_path, {"question": "Say it."}, {"question": "Say it again."})
    store = MemoryStore()
    sets = (f"evaluate.benchmarks.gsm8k={settings}", "evaluate.benchmarks.head_to_head=null")
    asked: list[str] = []

    def says(loud: Collection[str]) -> Callable[[Body], str]:
        def say(body: Body) -> str:
            if body["messages"][-1]["content"].startswith("Say"):
                asked.append(body["model"])
            return "LOUD" if body["model"] in loud else "quiet"

        return say

    with EngineServer(*MODELS) as server:
        server.say = says({"smollm2+dpo"})
        found = evaluated(server, monkeypatch, *sets, store=store)
    assert marks(found) == {("gsm8k", "base"): 0, ("gsm8k", "sft"): 0, ("gsm8k", "dpo"): 1}
    with EngineServer("other") as server:  # another model under the same names
        server.say = says({"other"})
        found = evaluated(
            server, monkeypatch, *sets, "models.smollm2.endpoint.model=other", store=store
        )
    assert set(marks(found).values()) == {1}
    assert Counter(asked) == {**dict.fromkeys(MODELS, 2), "other": 6}


HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def one():\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
    "entry_point": "one",
}


def test_programs_of_models_run_on_kubernetes_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    setting = f"evaluate.benchmarks.humaneval={data(tmp_path, HUMAN_EVAL)}"
    with EngineServer(*MODELS) as server:
        found = evaluated(server, monkeypatch, setting)
    assert "only in a pod" in found.manifest.facts["benchmarks"]["humaneval"]["failed"]
    assert not [row for row in found.rows("answers") if row["benchmark"] == "humaneval"]
    assert [rate["n"] for rate in found.manifest.facts["win_rates"]] == [2, 2, 2]


def test_programs_of_models_are_marked_by_their_outcome(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def run_program(sandbox: Sandbox, program: str) -> str:
        return "passed" if "return 1" in program else "AssertionError"

    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(Sandbox, "run", run_program)
    setting = f"evaluate.benchmarks.humaneval={data(tmp_path, HUMAN_EVAL)}"
    with EngineServer(*MODELS) as server:
        server.say = lambda body: "return 1" if body["model"] == "smollm2+dpo" else "return 2"
        found = evaluated(server, monkeypatch, setting, "evaluate.benchmarks.head_to_head=null")
    assert marks(found) == {
        ("humaneval", "base"): 0,
        ("humaneval", "sft"): 0,
        ("humaneval", "dpo"): 1,
    }


def test_a_candidate_that_may_be_published_leaves_a_canary_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with EngineServer(*MODELS) as server:
        found = evaluated(server, monkeypatch, "gate={}", "publish={}")
        asked = {
            body["model"]
            for body in server.requests
            if body.get("logprobs") and "structured_outputs" not in body
        }
        made = Canary.of_rows(found.rows("canary"))
        assert made
        served = {who: made.ask(Endpoint(server.url, who)) for who in ("smollm2+dpo", "smollm2")}
    assert asked == {"smollm2+dpo"}
    assert [row["id"] for row in found.rows("canary")] == ["0", "1"]
    assert served["smollm2+dpo"].agrees
    assert not served["smollm2"].agrees


def test_without_publishing_there_is_no_canary_set_and_the_fingerprint_stays() -> None:
    stage = importlib.import_module("moaa.stages.evaluate")
    plain, gated, published = (
        stage.part_of(load_file(DEMO, [*sets]).recipe).model_dump(mode="json")
        for sets in ((), ("gate={}",), ("gate={}", "publish={}"))
    )
    assert plain == gated
    assert published == plain | {"canary": "dpo"}
