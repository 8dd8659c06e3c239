"""A judge whose benchmark is asked for, and its scores."""

from __future__ import annotations

from typing import Any

from moaa.benchmarks.benchmark import Score
from moaa.recipe.load import load_file
from tests.support.paths import RECIPES

PAIRS = 60


def recipe_of(*sets: str) -> Any:
    return load_file(RECIPES / "demo.yaml", sets).recipe


def rows(n: int = PAIRS) -> list[dict[str, Any]]:
    sources = ("mmlu-pro-law", "livebench-reasoning", "livebench-math", "livecodebench")
    return [
        {
            "pair_id": f"pair-{i}",
            "original_id": i,
            "source": sources[i % 4],
            "question": f"Question {i}?",
            "response_model": "gpt" if i % 3 else "claude",
            "response_A": f"{'good' if i % 2 else 'bad'} answer {i}",
            "response_B": f"{'bad' if i % 2 else 'good'} answer {i}",
            "label": "A>B" if i % 2 else "B>A",
        }
        for i in range(n)
    ]


def one(scores: list[Score], metric: str, subset: str = "", against: str = "") -> Score:
    (found,) = [s for s in scores if (s.metric, s.subset, s.against) == (metric, subset, against)]
    return found
