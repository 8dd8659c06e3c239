"""IFBench on published answers: the checkers say of each what its authors' checkers said."""

from __future__ import annotations

from moaa.benchmarks.ifbench import Ifbench
from moaa.recipe.load import load_file
from tests.real.conftest import Read
from tests.support.paths import RECIPES


def test_every_verdict_is_the_published_one(read: Read) -> None:
    recipe = load_file(RECIPES / "demo.yaml", ["evaluate.benchmarks.ifbench={}"]).recipe
    settings = recipe.evaluate.benchmarks.ifbench
    assert settings
    benchmark = Ifbench(settings, recipe)
    answers = {row["prompt"]: row["response"] for row in read("ifbench/answers.jsonl")}
    published = {
        mode: {row["prompt"]: row["follow_instruction_list"] for row in rows}
        for mode in ("strict", "loose")
        for rows in [read(f"ifbench/{mode}.jsonl")]
    }
    items = benchmark.items(read("ifbench/questions.jsonl"))
    # The prompts of ten questions were changed since; six need a tagger that no package has.
    asked = [item for item in items if item.given["prompt"] in answers]
    assert len(asked) == 284
    for item in asked:
        prompt = item.given["prompt"]
        marks = benchmark.marks(item.given, answers[prompt])
        for mode, verdicts in published.items():
            assert marks[f"instruction, {mode}"] == verdicts[prompt], (item.id, mode)
    print(f"{len(asked)} prompts: every verdict as published")
