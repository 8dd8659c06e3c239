"""The labellers: what they ask, how they rank, what they refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moaa import preference
from moaa.chat.message import Call, Message
from moaa.errors import CallRejected, RecipeError, RowRejected
from moaa.labellers import Chance, Labels, RewardModel
from tests.support.changing import recipe
from tests.support.scripted import Ask, last

QUERY = [Message(role="user", content="Why is the sky blue?")]
SKYWORK = "models.skywork={source: org/skywork, task: reward}"


def scores(call: Call) -> Any:
    """The answer of a reward model: the text's length; longer than 20 is refused."""
    length = len(last(call))
    return repr(float(length)) if length <= 20 else CallRejected("context length", "5000 tokens")


async def test_a_reward_model_scores_each_answer_once() -> None:
    ask = Ask(scores)
    labels = await RewardModel("skywork")("p", QUERY, ["four", "seven 7", "1"], ask)
    assert labels.scores == (4.0, 7.0, 1.0)
    assert labels.ranking.order == (1, 0, 2)
    assert len(ask.calls) == 3
    assert list(ask.calls[0].messages) == [*QUERY, {"role": "assistant", "content": "four"}]
    assert Labels.from_json(3, json.loads(json.dumps(labels.to_json()))) == labels


async def test_scores_give_the_soft_wins_of_bradley_terry() -> None:
    ranking = preference.by_scores([0.0, 1.0])
    assert ranking.wins == pytest.approx((0.2689414, 0.7310586))
    pair = preference.pair(ranking)
    assert pair is not None
    assert (pair.chosen, pair.rejected) == (1, 0)
    assert pair.margin == pytest.approx(0.4621172)


def test_scores_that_saturate_keep_their_order() -> None:
    assert preference.by_scores([900.0, 1000.0, 800.0, 950.0]).order == (1, 3, 0, 2)


async def test_an_answer_that_is_too_long_is_neither_best_nor_worst() -> None:
    labels = await RewardModel("skywork")("p", QUERY, ["ab", "x" * 99, "abc"], Ask(scores))
    assert labels.scores == (2.0, None, 3.0)
    assert [(each.answer, each.reason) for each in labels.refused] == [(1, "context length")]
    pair = preference.pair(labels.ranking)
    assert pair is not None
    assert (pair.chosen, pair.rejected) == (2, 0)


async def test_one_score_is_no_preference() -> None:
    with pytest.raises(RowRejected, match=r"fewer than two answers with a score.*5000 tokens"):
        await RewardModel("skywork")("p", QUERY, ["ab", "x" * 99], Ask(scores))


async def test_an_answer_cannot_begin_a_turn_of_its_own() -> None:
    ask = Ask(scores)
    await RewardModel("skywork")("p", QUERY, ["<|im_end|>", "b"], ask)
    assert last(ask.calls[0]) != "<|im_end|>"


async def test_chance_is_fixed_for_each_prompt() -> None:
    answers = ["a", "b", "c", "d"]
    orders = {
        name: (await Chance()(name, QUERY, answers, Ask(scores))).ranking.order
        for name in ("p1", "p2", "p3", "p4", "p5", "p6")
    }
    assert len(set(orders.values())) > 3
    assert (await Chance()("p1", QUERY, answers, Ask(scores))).ranking.order == orders["p1"]


def test_a_single_judge_uses_all_criteria_and_one_model() -> None:
    label = recipe("label.labeller=judge").label
    judge = label.judge_of("judge")
    assert judge is not None
    assert (judge.criteria, judge.verdict) == ("all", "soft")
    assert label.models_of("judge") == {"smollm2"}
    assert [member.model for member in judge.proposers] == ["smollm2"]
    assert judge.verdict_instruction == label.judge.verdict_instruction


def test_the_judge_of_an_endpoint_is_parsed() -> None:
    gpt = "models.gpt={source: gpt-4.1, endpoint: {url: 'https://x/v1', key_env: KEY}}"
    judge = recipe("label.labeller=endpoint", "label.model=gpt", gpt).label.judge_of("endpoint")
    assert judge is not None
    assert (judge.verdict, set(judge.models)) == ("parsed", {"gpt"})


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        (["label.labeller=reward"], "asks one model. Name it: label.model"),
        (["label.labeller=reward", "label.model=smollm2"], "needs a model with task: reward"),
        (["label.labeller=reward", "label.model=no"], "'no' is not one of `models`"),
        (["label.model=no"], "'no' is not one of `models`"),
        ([SKYWORK, "generate.source=teacher", "generate.teacher=skywork"], "must write answers"),
        (["label.labeller=endpoint", "label.model=smollm2"], "smollm2 has none. Give models.sm"),
        ([SKYWORK, "generate.mixture.aggregator.model=skywork"], "skywork must write answers"),
        ([SKYWORK, "target=skywork"], "skywork must write answers"),
    ],
)
def test_a_model_must_fit_its_labeller(sets: list[str], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        recipe(*sets)


@pytest.mark.parametrize(
    ("sets", "models", "calls"),
    [
        (["label.labeller=reward", "label.model=skywork", SKYWORK], {"skywork"}, 15),
        (["label.labeller=judge"], {"smollm2"}, 3 * 10 * 2 * 2),
        (["label.labeller=random"], set(), 0),
    ],
)
def test_the_plan_counts_the_labellers_calls(sets: list[str], models: set[str], calls: int) -> None:
    from moaa.plan.calls import of_label
    from moaa.stages.table import LABEL

    chosen = recipe(*sets)
    assert LABEL.models(chosen) == models
    assert sum(asked.calls for asked in of_label(chosen)) == calls


def test_the_mixtures_fingerprint_does_not_know_other_labellers() -> None:
    from moaa.stages.label import part_of

    plain: dict[str, Any] = part_of(recipe()).model_dump(mode="json")
    assert not {"labeller", "model"} & set(plain)
    assert part_of(recipe(SKYWORK, "label.model=skywork")).model_dump(mode="json") == plain
    other = part_of(recipe(SKYWORK, "label.model=skywork", "label.labeller=reward"))
    assert set(other.model_dump(mode="json")) == {"min_margin", "models", "labeller", "model"}
