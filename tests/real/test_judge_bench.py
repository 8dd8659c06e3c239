"""JudgeBench's published accuracies, from published outputs of judges."""

from __future__ import annotations

from typing import Any

import pytest

from moaa.artifacts.table import Row
from moaa.benchmarks.data import digest
from moaa.benchmarks.items import Item
from moaa.benchmarks.judge_bench import JudgeBench
from moaa.recipe.load import load_file
from tests.real.conftest import Read
from tests.support.paths import RECIPES

P: dict[str | None, float | None] = {"A>B": 1.0, "B>A": 0.0, "A=B": 0.5, None: None}


@pytest.fixture
def benchmark() -> JudgeBench:
    recipe = load_file(RECIPES / "demo.yaml", ["evaluate.benchmarks.judge_bench={}"]).recipe
    settings = recipe.evaluate.benchmarks.judge_bench
    assert settings
    return JudgeBench(settings, recipe)


def judged(benchmark: JudgeBench, outputs: list[dict[str, Any]]) -> list[tuple[Item, Row]]:
    found = []
    for row in outputs:
        (item,) = benchmark.items([row])
        ab, ba = (P[each and each["decision"]] for each in row["judgments"])
        p_ba = None if ba is None else 1 - ba
        known = ab is not None and p_ba is not None
        found.append((item, {"p": 0.0 if known else None, "p_ab": ab, "p_ba": p_ba}))
    return found


@pytest.mark.parametrize(
    ("judge", "knowledge", "reasoning", "math", "coding", "overall"),
    [
        ("o1-mini", 58.44, 62.24, 82.14, 78.57, 65.71),
        ("Skywork-Reward-Gemma-2-27B", 59.74, 66.33, 83.93, 50.00, 64.29),
        ("Skywork-Reward-Llama-3.1-8B", None, None, None, None, 62.29),
        ("internlm2-20b-reward", None, None, None, None, 63.43),
    ],
)
def test_the_published_accuracy_comes_out(
    judge: str,
    knowledge: float | None,
    reasoning: float | None,
    math: float | None,
    coding: float | None,
    overall: float,
    read: Read,
    benchmark: JudgeBench,
) -> None:
    rows = judged(benchmark, read(f"judge_bench/outputs/{judge}.jsonl"))
    found = {
        score.subset: round(100 * score.estimate.value, 2)
        for score in benchmark.accuracies(judge, rows)
    }
    print(judge, found)
    assert found[""] == found["gpt-4o-2024-05-13"] == overall
    expected = {"knowledge": knowledge, "reasoning": reasoning, "math": math, "coding": coding}
    for subset, value in expected.items():
        assert value in (None, found[subset])


def test_the_published_pairs_are_known_by_their_digest(read: Read, benchmark: JudgeBench) -> None:
    items = benchmark.items(read("judge_bench/gpt.jsonl") + read("judge_bench/claude.jsonl"))
    assert len(items) == 620
    assert digest(items) == benchmark.digest
    assert benchmark.incomparable(items) == ""
    assert benchmark.incomparable(items[:350])
