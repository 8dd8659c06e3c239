"""The label and evaluate stages with judges that cannot always be read."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import Artifact, Draft, Output
from moaa.errors import TooManyRejected
from moaa.ledger import Ledger
from moaa.recipe.load import load_file
from moaa.stages.label import label
from moaa.weights.armorm import HEADS
from tests.support.engine_answers import Body, pooled
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.sampled import ANSWERS, samples
from tests.support.stage_run import NO_BENCHMARKS

PROMPTS = 8
CALLS_A_PROMPT = 90


class Judge:
    """The lower way is better. Verdicts on the orders (fact, first way, second way) that are
    `unreadable` are ties, and again if the same is asked."""

    def __init__(self, unreadable: Callable[[int, int, int], bool], *, stubborn: bool) -> None:
        self.unreadable, self.stubborn = unreadable, stubborn
        self.asked = 0

    def __call__(self, body: Body) -> str | None:
        self.asked += 1
        text = body["messages"][-1]["content"]
        if "Reply with the names of exactly three" in text:
            return "Accuracy, Depth, Clarity"
        if "end your reply with your verdict" not in text:
            return None
        (fact, first), (_, second) = [
            (int(fact), int(way)) for fact, way in re.findall(r"Fact (\d+) in way (\d)", text)[:2]
        ]
        if self.unreadable(fact, first, second) and (self.stubborn or "(Attempt" not in text):
            return "Both answers are equally good.\n\n[[C]]"
        return f"A closer look decides.\n[[{'A' if first < second else 'B'}]]"


def labelled(judge: Judge, *sets: str, prompts: int = PROMPTS) -> tuple[Artifact, EngineServer]:
    store = MemoryStore()
    with EngineServer("smollm2") as server:
        server.say = judge
        given = [
            f"models.smollm2.endpoint={{url: '{server.url}'}}",
            "label.judge.verdict=parsed",
            "runtime.max_rejected_share=0.04",
            *sets,
        ]
        manifest, _ = label.run(
            load_file(DEMO, given).recipe, store, samples(store, prompts), Ledger()
        )
    return Artifact(store, manifest), server


def test_unreadable_verdicts_of_a_greedy_judge_cost_no_prompt() -> None:
    found, _ = labelled(
        Judge(lambda fact, first, second: fact % 3 == 0 and first == 0, stubborn=False)
    )
    assert len(list(found.rows())) == PROMPTS
    events = found.manifest.ledger["events"]
    assert events["judge's replies that could not be read, asked again"] > 0
    assert not any("not judged" in event for event in events)


def test_verdicts_that_stay_unreadable_cost_their_orders_and_are_counted() -> None:
    found, _ = labelled(Judge(lambda *order: order in {(3, 1, 2), (7, 3, 1)}, stubborn=True))
    lost = [each for row in found.rows("judgements") for each in row["lost"]]
    assert len(lost) == 2
    assert found.manifest.ledger["events"]["orders not judged: verdict unparseable"] == len(lost)
    assert {(row["chosen_index"], row["rejected_index"]) for row in found.rows()} == {(0, 4)}
    assert len(list(found.rows())) == PROMPTS
    assert all(row["p"] is None for row in found.rows("judgements") if row["lost"])


def test_an_adaptive_judge_leaves_the_same_pairs_and_says_what_it_asked() -> None:
    judge = Judge(lambda *order: order in {(3, 1, 2), (7, 3, 1)}, stubborn=True)
    found, _ = labelled(judge, "label.judge.mode=adaptive")
    pairs = Counter((row["chosen_index"], row["rejected_index"]) for row in found.rows())
    assert pairs[0, 4] >= 0.95 * PROMPTS
    facts = found.manifest.facts["adaptive"]
    assert facts["calls_share"] <= 0.45
    assert facts["settled"] == 1
    assert sum(facts["pairs"].values()) == PROMPTS * 10
    asked = list(found.rows("judgements"))
    both = [row for row in asked if None not in (row["p_ab"], row["p_ba"])]
    assert len(asked) == facts["pairs"]["one"] + facts["pairs"]["both"]
    assert len(both) == facts["pairs"]["both"]
    assert all((row["p"] is None) == (row not in both) for row in asked)
    assert judge.asked < 0.5 * PROMPTS * CALLS_A_PROMPT


def test_a_judge_at_an_endpoint_is_asked_in_plain_openai_and_gives_the_same_rows() -> None:
    judge = Judge(lambda *order: False, stubborn=False)
    found, server = labelled(judge, "label.labeller=endpoint", "label.model=smollm2")
    assert {(row["chosen_index"], row["rejected_index"]) for row in found.rows()} == {(0, 4)}
    assert {tuple(row["wins"]) for row in found.rows()} == {(4.0, 3.0, 2.0, 1.0, 0.0)}
    asked = [body for body in server.requests if body["max_tokens"] > 1]
    assert len(asked) == PROMPTS * 10 * 2 * 2
    plain = {"model", "messages", "temperature", "top_p", "max_tokens"}
    assert all(set(body) == plain for body in asked)


def test_the_random_labeller_asks_nobody() -> None:
    store = MemoryStore()
    recipe = load_file(DEMO, ["label.labeller=random"]).recipe
    manifest, _ = label.run(recipe, store, samples(store, PROMPTS), Ledger())
    found = Artifact(store, manifest)
    pairs = {row["id"]: (row["chosen_index"], row["rejected_index"]) for row in found.rows()}
    assert len(pairs) == PROMPTS
    assert len(set(pairs.values())) > 5
    scores = {row["id"]: row["scores"] for row in found.rows("scores")}
    for id, (best, worst) in pairs.items():
        assert scores[id][best] == max(scores[id])
        assert scores[id][worst] == min(scores[id])
    assert manifest.facts["labeller"] == "random"


def scored_by(*sets: str) -> tuple[Artifact, EngineServer]:
    """The pairs of a labeller that asks the model `rm` for scores or vectors."""
    store = MemoryStore()
    with EngineServer("rm") as server:
        given = [f"models.rm={{source: a/rm, endpoint: {{url: '{server.url}'}}, {sets[0]}}}"]
        server.refuse = lambda body: "Fact 3 in way 2" in body["messages"][-1]["content"]
        recipe = load_file(DEMO, [*given, "label.model=rm", *sets[1:]]).recipe
        manifest, _ = label.run(recipe, store, samples(store, PROMPTS), Ledger())
    return Artifact(store, manifest), server


def test_a_reward_model_labels_with_one_call_an_answer() -> None:
    found, server = scored_by("task: reward", "label.labeller=reward")
    asked = [body for path, body in server.pooled if len(body["messages"]) == 2]
    assert len(asked) == PROMPTS * ANSWERS
    assert server.requests == []
    scores = {row["id"]: row["scores"] for row in found.rows("scores")}
    for row in found.rows():
        given = [score for score in scores[row["id"]] if score is not None]
        assert scores[row["id"]][row["chosen_index"]] == max(given)
        assert scores[row["id"]][row["rejected_index"]] == min(given)
    assert scores["3"][2] is None
    assert len(list(found.rows())) == PROMPTS
    assert found.manifest.facts["scores"]["refused"] == 1
    assert found.manifest.ledger["events"]["answers without a score: context length"] == 1
    assert found.manifest.ledger["models"]["rm"]["calls"] == PROMPTS * ANSWERS - 1


def test_answers_that_are_too_long_count_against_the_limit() -> None:
    with pytest.raises(TooManyRejected, match="context length"):
        scored_by("task: reward", "label.labeller=reward", "runtime.max_rejected_share=0.001")


def test_armorm_labels_with_the_heads_beside_its_body(tmp_path: Path) -> None:
    import numpy as np

    arrays = {
        "regression_layer.weight": np.array([[1.0, 0, 0, 0]]),
        "reward_transform_matrix": np.array([[1.0]]),
        "gating.layers.0.weight": np.zeros((1, 4)),
        "gating.layers.0.bias": np.zeros(1),
        "gating.logit_scale": np.array([1.0]),
        "temperature": np.array(10.0),
    }
    with (tmp_path / HEADS).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    found, server = scored_by(
        "task: embed", "label.labeller=armorm", f"models.rm.source={tmp_path}"
    )
    assert len(server.pooled) > PROMPTS * (ANSWERS + 1)  # and first answers
    scores = {row["id"]: row["scores"] for row in found.rows("scores")}
    body = {"model": "rm", "messages": server.pooled[-1][1]["messages"]}
    vector = np.frombuffer(base64.b64decode(pooled("/pooling", body)["data"][0]["data"]), "<f4")
    assert any(float(vector[0]) in given for given in scores.values())


def test_a_judge_that_is_never_read_fails_the_stage_at_once() -> None:
    judge = Judge(lambda *order: True, stubborn=True)
    with pytest.raises(TooManyRejected, match="verdict unparseable"):
        labelled(judge, "runtime.calls.in_flight=4", prompts=25)
    assert judge.asked < 25 * CALLS_A_PROMPT


def test_a_pair_of_the_evaluation_that_cannot_be_judged_is_not_in_the_win_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluate: Any = import_module("moaa.stages.evaluate")
    monkeypatch.setattr(
        evaluate, "tuned", lambda target, name, made: (f"{name}+{made.manifest.stage}", target)
    )
    store = MemoryStore()

    def artifact(name: str) -> Artifact:
        with Output(store, f"{store.root}/{name}/x", "any") as out:
            for number in range(4 if name == "prompts" else 0):
                row = {"id": str(number), "source": "s", "system": None, "turns": [f"q{number}"]}
                out.write(row, table="evaluation")
            return Artifact(store, out.commit(Draft(stage=name, name="n", fingerprint=name)))

    def says(body: Body) -> str | None:
        text = body["messages"][-1]["content"]
        if body["model"] != "smollm2" and "answer_a" not in text:
            return f"{body['model']} on {text}"
        if "Reply with the names" in text:
            return "Accuracy, Depth, Clarity"
        if "end your reply with your verdict" in text:
            return "[[C]]" if "smollm2+dpo on q2" in text else "[[A]]"
        return None

    with EngineServer("smollm2", "smollm2+sft", "smollm2+dpo") as server:
        server.say = says
        given = [
            f"models.smollm2.endpoint={{url: '{server.url}'}}",
            "label.judge.verdict=parsed",
            "runtime.max_rejected_share=0.3",
        ]
        inputs = {name: artifact(name) for name in ("prompts", "sft", "dpo")}
        manifest, _ = evaluate.evaluate.run(
            load_file(DEMO, [*given, NO_BENCHMARKS]).recipe, store, inputs
        )
    rates = {rate["model"]: rate["n"] for rate in manifest.facts["win_rates"]}
    assert rates == {"sft": 4, "dpo": 3}
    assert manifest.ledger["events"]["orders not judged: verdict unparseable"] == 4  # of two pairs
    assert manifest.ledger["rows"]["kept"] == 24  # 3 answers and 3 pairs of each
