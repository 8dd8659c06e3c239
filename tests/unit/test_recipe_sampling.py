"""Who samples how where a recipe says a part of it only: the rest is the stage's own default, not
the generator's."""

from __future__ import annotations

import pytest

from moaa.errors import RecipeError
from moaa.recipe.load import load_text

SMALL = """\
name: small
store: {root: s3://bucket/small}
models: {m: {source: some/model}}
target: m
prompts:
  sft: [{source: a.jsonl}]
  preference: [{source: b.jsonl}]
  evaluation: [{source: c.jsonl}]
generate: {mixture: {proposers: [{model: m}], aggregator: {model: m}}}
label: {judge: {proposers: [{model: m}], aggregator: {model: m}}}
"""


def sampled(*sets: str) -> dict[str, tuple[float, float, int, int]]:
    recipe = load_text(SMALL, sets).recipe
    judge, mixture = recipe.label.judge, recipe.generate.mixture
    found = {
        "proposer": mixture.proposers[0].sampling,
        "sample": recipe.sample.sampling,
        "assessor": judge.proposers[0].sampling,
        "chair": judge.aggregator.sampling,
        "evaluate": recipe.evaluate.sampling,
    }
    return {who: (s.temperature, s.top_p, s.max_tokens, s.n) for who, s in found.items()}


DEFAULTS = {
    "proposer": (0.7, 1.0, 2048, 1),
    "sample": (0.8, 0.95, 2048, 5),
    "assessor": (0.0, 1.0, 512, 1),
    "chair": (0.0, 1.0, 512, 1),
    "evaluate": (0.0, 1.0, 2048, 1),
}


def test_defaults() -> None:
    assert sampled() == DEFAULTS


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("generate.mixture.proposers[0].sampling.max_tokens=256", {"proposer": (0.7, 1.0, 256, 1)}),
        ("label.judge.aggregator.sampling.max_tokens=256", {"chair": (0.0, 1.0, 256, 1)}),
        ("label.judge.proposers[0].sampling={top_p: 0.9}", {"assessor": (0.0, 0.9, 512, 1)}),
        ("sample.sampling.n=4", {"sample": (0.8, 0.95, 2048, 4)}),
        ("sample.sampling.temperature=1", {"sample": (1.0, 0.95, 2048, 5)}),
        ("evaluate.sampling.max_tokens=512", {"evaluate": (0.0, 1.0, 512, 1)}),
    ],
)
def test_a_part_of_a_sampling_changes_that_part_only(
    setting: str, changed: dict[str, tuple[float, float, int, int]]
) -> None:
    assert sampled(setting) == DEFAULTS | changed


def test_an_evaluations_own_judge_is_greedy_too() -> None:
    own = "evaluate.judge={proposers: [{model: m}], aggregator: {model: m, sampling: {seed: 1}}}"
    judge = load_text(SMALL, [own]).recipe.evaluation_judge
    assert (judge.aggregator.sampling.temperature, judge.aggregator.sampling.max_tokens) == (0, 512)


def test_rows_say_which_part_was_given_and_which_is_the_default() -> None:
    rows = {
        path: (value, where)
        for path, value, where in load_text(SMALL, ["sample.sampling.n=4"]).rows()
    }
    assert rows["sample.sampling.n"] == (4, "--set sample.sampling.n")
    assert rows["sample.sampling.temperature"] == (0.8, "default")
    assert rows["label.judge.aggregator.sampling.max_tokens"] == (512, "default")


@pytest.mark.parametrize("part", ["sample", "evaluate", "label.judge.aggregator"])
def test_bounds_hold_everywhere(part: str) -> None:
    with pytest.raises(RecipeError, match="less than or equal to 2"):
        load_text(SMALL, [f"{part}.sampling.temperature=3"])


@pytest.mark.parametrize(
    "setting",
    [
        "sample.sampling.temperature=0",
        "sample.sampling={n: 3, temperature: 1e-6}",
        "generate.mixture.proposers[0].sampling={n: 2, temperature: 0}",
        "label.judge.proposers[0].sampling={n: 2}",
    ],
)
def test_several_answers_without_chance_are_refused_before_the_engine_does(setting: str) -> None:
    """vLLM: "n must be 1 when using greedy sampling"."""
    with pytest.raises(RecipeError, match=r"every answer is the\s+same"):
        load_text(SMALL, [setting])


@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize("seed", [-1, 2**32, 10**20])
def test_a_seed_that_no_training_takes_is_refused_before_its_data_is_paid_for(
    stage: str, seed: int
) -> None:
    """numpy: "Seed must be between 0 and 2**32 - 1"."""
    with pytest.raises(RecipeError, match=rf"{stage}\.seed is {seed}"):
        load_text(SMALL, [f"{stage}.seed={seed}"])
    assert load_text(SMALL, [f"{stage}.seed={2**32 - 1}"])
