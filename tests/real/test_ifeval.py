"""IFEval on published answers of GPT-4: 540 of its 541 prompts."""

from __future__ import annotations

from moaa.benchmarks.ifeval import Ifeval
from moaa.recipe.load import load_file
from moaa.statistics import share
from tests.real.conftest import Read
from tests.support.paths import RECIPES

KNOWN = {
    "prompt, strict": 77.22,
    "instruction, strict": 83.77,
    "prompt, loose": 79.81,
    "instruction, loose": 85.70,
}


def test_the_published_answers_have_the_known_scores(read: Read) -> None:
    recipe = load_file(RECIPES / "demo.yaml", ["evaluate.benchmarks.ifeval={}"]).recipe
    settings = recipe.evaluate.benchmarks.ifeval
    assert settings
    benchmark = Ifeval(settings, recipe)
    answers = {row["prompt"]: row["response"] for row in read("ifeval/gpt4.jsonl")}
    items = benchmark.items(
        row for row in read("ifeval/questions.jsonl") if row["prompt"] in answers
    )
    assert len(items) == 540
    verdicts: dict[str, list[bool]] = {name: [] for name in KNOWN}
    for item in items:
        for name, mark in benchmark.marks(item.given, answers[item.given["prompt"]]).items():
            verdicts[name] += mark if isinstance(mark, list) else [bool(mark)]
    found = {
        name: round(100 * share(sum(right), len(right)).value, 2)
        for name, right in verdicts.items()
    }
    print(found)
    assert found == KNOWN
