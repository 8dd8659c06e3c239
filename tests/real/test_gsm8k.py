"""GSM8K: the published solutions are right, other numbers are wrong."""

from __future__ import annotations

from moaa.benchmarks.gsm8k import Gsm8k
from moaa.recipe.load import load_file
from tests.real.conftest import Read
from tests.support.paths import RECIPES


def test_the_published_solutions_are_right_and_others_are_wrong(read: Read) -> None:
    recipe = load_file(RECIPES / "demo.yaml", ["evaluate.benchmarks.gsm8k={}"]).recipe
    settings = recipe.evaluate.benchmarks.gsm8k
    assert settings
    benchmark = Gsm8k(settings, recipe)
    items = benchmark.items(read("gsm8k/questions.jsonl"))
    assert len(items) == 1319
    assert "not the published" not in benchmark.incomparable(items)
    for item in items:
        thought, _, number = str(item.given["answer"]).partition("#### ")
        right = benchmark.marks(item.given, f"{thought}The answer is {number}.")
        assert set(right.values()) == {1.0}, item.id
        wrong = benchmark.marks(item.given, f"{thought}The answer is {number}1.")
        assert set(wrong.values()) == {0.0}, item.id
    print(f"{len(items)} solutions: right, and wrong with another number")
