"""The plan of a run: calls, tokens, hours and dollars."""

from __future__ import annotations

import io
import math
from collections import Counter

import pytest

from moaa import judge, mixture, plan
from moaa.recipe import Recipe
from moaa.recipe.load import load_file
from moaa.stages.table import stages
from tests.support.paths import DEMO, PAPER
from tests.support.plan_lines import calls, planned
from tests.support.scripted import Ask


def test_the_papers_judge_asks_540_000_times() -> None:
    recipe = load_file(PAPER).recipe
    assert calls(recipe, "label") == 540_000
    assert {model: line.calls for model, line in planned(recipe, "label").items()} == {
        "qwen2-72b": 6_000 * (10 + 20 + 20),  # criteria, its own assessments, verdicts
        "gemma-2-27b": 6_000 * 20,
        "llama-3-1-70b": 6_000 * 20,
    }


@pytest.mark.parametrize(
    ("sets", "each"),
    [
        (["label.judge.criteria=per-order"], 100),
        (["label.judge.criteria=all"], 80),
        (["label.judge.criteria=per-prompt"], 81),
        (["sample.sampling.n=2"], 9),
        (["label.judge.mode=adaptive", "plan.adaptive_share=0.4"], 36),
    ],
)
def test_the_judges_other_settings(sets: list[str], each: int) -> None:
    assert calls(load_file(PAPER, sets).recipe, "label") == 6_000 * each


def test_the_adaptive_judges_share_is_an_assumption_that_is_said() -> None:
    recipe = load_file(PAPER, ["label.judge.mode=adaptive"]).recipe
    said = plan.assumptions(recipe, plan.lines(recipe, stages()))
    assert any("adaptive judge asks 45% of the exhaustive one's calls" in each for each in said)
    before = load_file(PAPER).recipe
    assert not any("adaptive" in each for each in plan.assumptions(before, []))
    assert calls(recipe, "evaluate") == calls(before, "evaluate")


def test_held_out_rows_are_not_trained_on() -> None:
    sets = ["sft.packing=false", "sft.validation=0.1", "dpo.validation=0.1"]
    part, whole = load_file(PAPER, sets).recipe, load_file(PAPER, sets[:1]).recipe

    def steps(recipe: Recipe) -> dict[str, int]:
        return {line.stage: line.steps for line in plan.lines(recipe, stages()) if line.steps}

    batches = {"sft": 66_135 / 128, "dpo": 6_000 / 128}
    for stage, epochs in (("sft", part.sft.epochs), ("dpo", part.dpo.epochs)):
        assert steps(whole)[stage] == math.ceil(math.ceil(batches[stage]) * epochs)
        assert steps(part)[stage] == math.ceil(math.ceil(0.9 * batches[stage]) * epochs)


def test_the_papers_first_stage_costs_what_the_paper_says() -> None:
    said = plan.comparison(load_file(PAPER).recipe, plan.lines(load_file(PAPER).recipe, stages()))
    assert said[0] == (
        "generate, ultrafeedback: $367 for 61,135 conversations of 1 turn, $0.0060 each, 63% of "
        "it the aggregator's"
    )
    assert (
        "paper: $366 for 61k prompts, $0.0060 each, 63% of it the aggregator's; GPT-4o would be "
        "$429" in said
    )
    assert "label: 540,000 calls for 6,000 prompts, 90 each" in said
    # 61k prompts, $366 within 1 %:
    recipe = load_file(PAPER, ["prompts.sft=[{source: x.jsonl, limit: 61000}]"]).recipe
    assert sum(
        line.cost_usd or 0 for line in planned(recipe, "generate").values()
    ) == pytest.approx(366, rel=0.01)
    aggregator = planned(recipe, "generate")["qwen1-5-110b"]
    assert (aggregator.prompt_tokens + aggregator.completion_tokens) / 61_000 == pytest.approx(
        2_100, rel=0.01
    )


def test_without_prices_there_are_no_dollars_and_it_is_said() -> None:
    recipe = load_file(PAPER, ["models.qwen2-72b.price=null"]).recipe
    assert planned(recipe, "generate")["qwen2-72b"].cost_usd is None
    assert not any(
        sentence.startswith("generate")
        for sentence in plan.comparison(recipe, plan.lines(recipe, stages()))
    )
    assert any(
        "no dollars for qwen2-72b" in sentence
        for sentence in plan.assumptions(recipe, plan.lines(recipe, stages()))
    )


@pytest.mark.parametrize(
    "sets",
    [
        [],
        ["generate.mixture.layers=4"],
        ["generate.mixture.proposers[0].sampling.n=3"],
        ["label.judge.criteria=per-order", "label.judge.verdict=parsed"],
        ["label.judge.criteria=all", "sample.sampling.n=4"],
    ],
)
async def test_counts_are_those_of_the_method_itself(sets: list[str]) -> None:
    """A model counts the calls of the method itself; the plan must give the same for each model."""
    recipe = load_file(DEMO, sets).recipe
    chosen, judges, n = recipe.generate.mixture, recipe.label.judge, recipe.sample.sampling.n

    def answer(call):
        if call.choices:
            return call.choices[0]
        return [
            "[[A]]" if "[[A]]" in call.messages[-1]["content"] else "Accuracy, Depth, Clarity"
        ] * call.sampling.n

    ask = Ask(answer)
    await mixture.converse(chosen, None, ["one", "two"], ask)
    conversations = recipe.prompts.sft[0].limit
    pairs = recipe.prompts.preference[0].limit
    assert conversations
    assert pairs
    assert calls(recipe, "generate") == len(ask.calls) * conversations

    asked = Ask(answer)
    if judges.verdict == "parsed":
        await judge.tournament(judges, [{"role": "user", "content": "q"}], list("abcde")[:n], asked)
        assert calls(recipe, "label") == len(asked.calls) * pairs
    else:
        # A soft verdict needs log-probabilities: count until the verdict, which is one call an
        # order.
        before = await _until_verdict(judges, list("abcde")[:n], asked)
        assert calls(recipe, "label") == before * pairs


async def _until_verdict(judges, answers: list[str], ask: Ask) -> int:
    from moaa.chat.message import Choice, Reply

    inner = ask.answer

    def answer(call):
        if call.logprobs:
            return Reply((Choice("A", "stop", ({"A": -0.5, "B": -0.9},)),))
        return inner(call)

    ask.answer = answer
    await judge.tournament(judges, [{"role": "user", "content": "q"}], answers, ask)
    return len(ask.calls)


def test_history_grows_with_the_turns() -> None:
    """Two turns of 75 and answers of 80: the second turn's calls see 75 + 80 + 75, the mean call 75
    + 77.5."""
    one = planned(load_file(DEMO, ["plan.turns_per_prompt=1"]).recipe, "generate")["smollm2"]
    two = planned(load_file(DEMO).recipe, "generate")["smollm2"]
    assert two.calls == 2 * one.calls
    grown = two.prompt_tokens / two.calls - one.prompt_tokens / one.calls
    assert grown == pytest.approx((75 + 40) / 2, abs=0.1)


def test_self_moa_pays_the_prompt_once_and_every_answer() -> None:
    one, three = (
        planned(
            load_file(
                DEMO,
                [
                    f"generate.mixture.proposers=[{{model: smollm2, sampling: {{n: {n}, "
                    "max_tokens: 96}}]"
                ],
            ).recipe,
            "generate",
        )["smollm2"]
        for n in (1, 3)
    )
    assert three.calls == one.calls
    assert three.completion_tokens - one.completion_tokens == 2 * 40 * 16
    assert (three.prompt_tokens - one.prompt_tokens) / 16 == 2 * (
        40 + 4
    )  # the aggregator reads two more proposals


def test_training_steps_and_their_limit() -> None:
    recipe = load_file(PAPER).recipe
    sft, dpo = planned(recipe, "sft")["llama-3-1-8b"], planned(recipe, "dpo")["llama-3-1-8b"]
    tokens = (61_135 + 5_000 * 3) * (256 + 328)
    assert sft.train_tokens == tokens * 6
    assert sft.steps == 6 * math.ceil(math.ceil(tokens / 4096) / 128)
    assert dpo.steps == 5 * 47  # 6,000 pairs, 128 a step
    unpacked = planned(load_file(PAPER, ["sft.packing=false"]).recipe, "sft")["llama-3-1-8b"]
    assert unpacked.steps == 6 * math.ceil(66_135 / 128)
    capped = planned(load_file(PAPER, ["sft.max_steps=51"]).recipe, "sft")["llama-3-1-8b"]
    assert capped.steps == 51
    assert capped.train_tokens == pytest.approx(sft.train_tokens * 51 / sft.steps, rel=1e-6)


def test_rows_are_plain_data_named_as_the_ledgers_name_models() -> None:
    rows = plan.as_rows(plan.lines(load_file(DEMO).recipe, stages()))
    assert [(row["stage"], row["model"]) for row in rows] == [
        ("generate", "smollm2"),
        ("sft", "smollm2"),
        ("sample", "smollm2+sft"),
        ("label", "smollm2"),
        ("dpo", "smollm2"),
        ("evaluate", "smollm2"),
        ("evaluate", "smollm2+sft"),
        ("evaluate", "smollm2+dpo"),
    ]
    assert all(
        type(row[key]) is int
        for row in rows
        for key in ("calls", "prompt_tokens", "completion_tokens", "train_tokens", "steps")
    )


def test_the_table_holds_every_line_and_the_assumptions() -> None:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=140).print(
        plan.table(load_file(PAPER).recipe, plan.of_rounds(load_file(PAPER).recipe, stages()))
    )
    text = out.getvalue()
    counts = Counter(word for word in text.split() if word.startswith("llama-3-1-8b"))
    assert counts["llama-3-1-8b+sft"] == 2
    for expected in (
        "995,705",
        "$366 for 61k prompts",
        "540,000",
        "256 a user turn",
        "GPU-h",
        "510 steps",
        "926.0 GB",
        "112.0 GB for each checkpoint",
    ):
        assert expected in text, expected
