"""Benchmarks with data of their own, played by the stage: from files, on a served model."""

from __future__ import annotations

import importlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moaa import statistics
from moaa.artifacts import Artifact, Draft, Output
from moaa.artifacts.columns import TABLES
from moaa.recipe.load import load_file
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

ALPACA = [{"instruction": f"Say {i}.", "output": f"{i}.", "dataset": "koala"} for i in range(4)]
ARENA = [
    *({"uid": f"u{i}", "category": "arena-hard-v0.1", "prompt": f"Say {i}."} for i in range(4)),
    *(
        {"uid": f"u{i}", "messages": [{"role": "assistant", "content": {"answer": f"{i}."}}]}
        for i in range(4)
    ),
]
JUDGE = [
    {
        "pair_id": f"p{i}",
        "source": "livebench-math",
        "question": f"{i} + {i}?",
        "response_model": "m",
        "response_A": str(2 * i),
        "response_B": "7",
        "label": "A>B",
    }
    for i in range(4)
]
REWARD = [
    {"id": i, "prompt": f"Say {i}.", "chosen": f"{i}.", "rejected": "No.", "subset": "hep-go"}
    for i in range(4)
]

ONLY = [f"evaluate.benchmarks.{name}=null" for name in ("head_to_head", "mt_bench", "ifbench")]
"""Takes the demo's own benchmarks out."""


pytestmark = pytest.mark.xdist_group("played")  # its fixture is made once


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """One evaluation by all four, without head to head."""
    folder = tmp_path_factory.mktemp("data")
    data = {
        "alpaca_eval": ALPACA,
        "arena_hard": ARENA,
        "judge_bench": JUDGE,
        "reward_bench": REWARD,
    }
    sets = [*ONLY, 'evaluate.contestants=["base"]']
    for name, rows in data.items():
        file = folder / f"{name}.json"
        file.write_text(json.dumps(rows))
        sets.append(f'evaluate.benchmarks.{name}={{"data": [{{"source": "{file}"}}]}}')
    sets.append('evaluate.benchmarks.reward_bench.judges=["mixture"]')
    with pytest.MonkeyPatch.context() as patch:
        for name in ("length_adjusted", "battle_rate", "style_controlled"):
            patch.setattr(statistics, name, partial(getattr(statistics, name), resamples=20))
        return run(sets, folder)


def run(sets: list[str], folder: Path) -> Artifact:
    stage = importlib.import_module("moaa.stages.evaluate")
    store = MemoryStore()
    with Output(store, f"{store.root}/prompts/x", "any") as out:
        prompts = Artifact(store, out.commit(Draft(stage="prompts", name="n", fingerprint="p")))
    with EngineServer("smollm2") as server:
        recipe = load_file(DEMO, [f"models.smollm2.endpoint={{url: '{server.url}'}}", *sets]).recipe
        manifest, _ = stage.evaluate.run(recipe, store, {"prompts": prompts})
    return Artifact(store, manifest)


def facts_of(played: Artifact) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = played.manifest.facts["benchmarks"]
    return found


def test_every_benchmark_has_scores_with_intervals(played: Artifact) -> None:
    facts = facts_of(played)
    assert list(facts) == ["alpaca_eval", "arena_hard", "judge_bench", "reward_bench"]
    for name, each in facts.items():
        assert not each["failed"], name
        assert each["incomparable"], "made questions"
        assert sum(score["main"] for score in each["scores"]) >= 1
        for score in each["scores"]:
            assert score["low"] <= score["high"]
            assert score["n"] > 0
            assert score["unit"]
    assert facts["judge_bench"]["judge"] == "", "judges are what it measures"
    assert len(list(played.rows("scores"))) == sum(len(each["scores"]) for each in facts.values())


def test_a_baselines_answers_have_their_length_beside_the_contestants(played: Artifact) -> None:
    """Without it no plot and no table could say how much of a win rate is length."""
    facts = facts_of(played)
    for name, baseline in (("alpaca_eval", "gpt-4-1106-preview"), ("arena_hard", "gpt-4-0314")):
        ours, theirs = (facts[name]["lengths"][who] for who in ("base", baseline))
        assert (theirs["mean_characters"], theirs["answers"]) == (2.0, 4)
        assert ours["mean_characters_low"] <= ours["mean_characters"]
        assert set(theirs) < set(ours)
    assert facts["judge_bench"]["lengths"] == {}


def test_judgements_name_the_baseline_and_verdicts_the_judge(played: Artifact) -> None:
    judged = list(played.rows("judgements"))
    assert {(row["model_a"], row["model_b"]) for row in judged} == {
        ("base", "gpt-4-1106-preview"),
        ("base", "gpt-4-0314"),
    }
    assert len(judged) == 8
    verdicts = list(played.rows("verdicts"))
    assert {row["entrant"] for row in verdicts if row["benchmark"] == "reward_bench"} == {
        "mixture of strict, fair, reader and smollm2"
    }
    assert len([row for row in verdicts if row["benchmark"] == "judge_bench"]) == 4 * 6


@pytest.mark.parametrize("table", ["scores", "judgements", "verdicts", "answers"])
def test_rows_have_the_declared_fields_and_no_others(played: Artifact, table: str) -> None:
    (declared,) = [each for each in TABLES if (each.kind, each.name) == ("scores", table)]
    names = {field.name for field in declared.fields}
    for row in played.rows(table):
        assert set(row) == names


def test_data_of_something_else_fail_that_benchmark_alone(tmp_path: Path) -> None:
    wrong, right, gone = (tmp_path / f"{name}.json" for name in ("wrong", "right", "gone"))
    wrong.write_text(json.dumps([{"text": "?"}]))
    right.write_text(json.dumps(REWARD))
    facts = facts_of(
        run(
            [
                *ONLY,
                'evaluate.contestants=["base"]',
                f'evaluate.benchmarks.alpaca_eval={{"data": [{{"source": "{wrong}"}}]}}',
                f'evaluate.benchmarks.arena_hard={{"data": [{{"source": "{gone}"}}]}}',
                f'evaluate.benchmarks.reward_bench={{"data": [{{"source": "{right}"}}]}}',
            ],
            tmp_path,
        )
    )
    assert f"row 1 of {wrong}: it has no instruction" in facts["alpaca_eval"]["failed"]
    assert "no such file" in facts["arena_hard"]["failed"]
    assert facts["reward_bench"]["scores"]
