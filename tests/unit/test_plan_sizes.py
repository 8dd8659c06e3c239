"""How large the GPUs of a run are together, and one model at a time."""

from __future__ import annotations

import pytest

from moaa import plan
from moaa.recipe.load import load_file
from moaa.stages.table import stages
from tests.support.paths import DEMO, PAPER
from tests.support.plan_lines import calls, planned


def test_hours_are_those_of_the_gpus_and_an_endpoint_has_none() -> None:
    sets = ["models.smollm2.tensor_parallel=4", "plan.gpu_hour_usd=3"]
    plain, four = (planned(load_file(DEMO, s).recipe, "generate")["smollm2"] for s in ([], sets))
    assert plain.gpu_hours
    assert four.gpu_hours
    assert plain.gpu_hours == pytest.approx(
        (plain.prompt_tokens / 3200 + plain.completion_tokens / 650) / 3600, rel=1e-3
    )
    assert four.gpu_hours == pytest.approx(4 * plain.gpu_hours)
    assert four.gpu_usd == pytest.approx(3 * four.gpu_hours)
    served = load_file(DEMO, ["models.smollm2.endpoint.url=http://host/v1"]).recipe
    assert planned(served, "generate")["smollm2"].gpu_hours is None
    assert (
        planned(served, "sample")["smollm2+sft"].gpu_hours is not None
    )  # what we trained we serve ourselves


def test_unknown_sizes_are_said_and_can_be_stated() -> None:
    unsaid = load_file(DEMO, ["prompts.sft[0].limit=null"]).recipe
    assert calls(unsaid, "generate") == 0
    assert any(
        s.startswith("missing: the number of prompts in") and "plan.prompts.sft" in s
        for s in plan.assumptions(unsaid, plan.lines(unsaid, stages()))
    )
    stated = load_file(DEMO, ["prompts.sft[0].limit=null", "plan.prompts.sft=8"]).recipe
    assert calls(stated, "generate") == calls(load_file(DEMO).recipe, "generate")


def test_sizes_together_and_by_turns() -> None:
    sizes = {
        size.stage: size
        for size in plan.sizing(
            load_file(PAPER).recipe, plan.lines(load_file(PAPER).recipe, stages())
        )
    }
    generate = sizes["generate"]
    assert (generate.gpus, generate.gpus_by_turns) == (8 + 4 + 2 + 4 + 4, 8)
    assert generate.hours < generate.hours_by_turns
    asked = [
        line for line in plan.lines(load_file(PAPER).recipe, stages()) if line.stage == "generate"
    ]
    tensor_parallel = {"wizardlm-2-8x22b": 8, "gemma-2-27b": 2}
    by_hand = [
        line.gpu_hours / tensor_parallel.get(line.model, 4) for line in asked if line.gpu_hours
    ]
    assert generate.hours == pytest.approx(max(by_hand))
    assert generate.hours_by_turns == pytest.approx(sum(by_hand))
    assert (sizes["sft"].gpus, sizes["sft"].gpus_by_turns) == (8, 8)
    assert sizes["sft"].hours == pytest.approx(sizes["sft"].hours_by_turns)


def test_without_gpus_there_is_no_size() -> None:
    assert plan.sizing(load_file(DEMO).recipe, plan.lines(load_file(DEMO).recipe, stages())) == []


@pytest.mark.parametrize(
    "source",
    [
        "mixture",
        "original",
        "teacher, generate.teacher=smollm2",
        "random",
        "best, generate.labeller=mixture",
    ],
)
def test_the_mixture_as_a_contestant_is_asked_whatever_writes_the_sft_data(source: str) -> None:
    """GSM8K has 1,319 questions; four members propose in one layer, and one aggregates."""
    settings = [
        "evaluate.benchmarks={head_to_head: null, gsm8k: {}}",
        "generate.mixture.layers=2",
        *f"generate.source={source}".split(", "),
    ]
    alone, both = (
        load_file(DEMO, [*settings, f"evaluate.contestants={names}"]).recipe
        for names in ("[base]", "[base, mixture]")
    )
    asked = calls(both, "evaluate") - calls(alone, "evaluate")
    assert asked == 1319 * (len(both.generate.mixture.proposers) + 1)
