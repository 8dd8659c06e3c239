"""What is said of a judge: its facts, its tally, and what it could not read."""

import asyncio
import json
import re

import pytest

from moaa.chat.message import Choice, Reply
from moaa.errors import CallFailed, CallRejected, EngineError, RowRejected
from moaa.judge import (
    Judgement,
    Order,
    Tally,
    compare,
    tie,
    tournament,
)
from moaa.judge.judgement import merged
from moaa.statistics import mean
from tests.support.judge_steps import JUDGE, QUERY, judging, step
from tests.support.scripted import Ask, last


def facts_of(judgements):
    tally = Tally()
    tally.add(*judgements)
    return tally.facts()


async def test_one_assessment_is_too_few_where_two_are_needed():
    failing = Ask(
        lambda call: (
            CallFailed("timeout", "600 s") if call.model in ("j1", "j3") else judging()(call)
        )
    )
    with pytest.raises(
        RowRejected, match=r"1 assessments, 2 needed; left out: j1 \(timeout: 600 s\), j3 \("
    ):
        await tournament(JUDGE, QUERY, ["x", "y"], failing)
    lenient = JUDGE.model_copy(update={"min_proposers": 1})
    assert len((await compare(lenient, QUERY, "x", "y", failing)).orders[0].assessments) == 1


async def test_a_failed_assessor_is_left_out_and_said_so():
    def answer(call):
        return CallFailed("timeout", "600 s") if call.model == "j2" else judging()(call)

    judgement = await compare(JUDGE, QUERY, "x", "y", ask := Ask(answer))
    for order in judgement.orders:
        assert [a.name for a in order.assessments] == ["j1", "j3"]
        assert [(out.name, out.reason) for out in order.left_out] == [("j2", "timeout")]
    for call in ask.of("chair"):
        if step(call) == "verdict":
            assert re.search(r"2\. <assessment \w{8}>\nassessment by j3\n", last(call))
    assert json.loads(json.dumps(judgement.to_json()))["orders"][0]["left_out"] == [
        {"name": "j2", "layer": 0, "reason": "timeout"}
    ]


@pytest.mark.parametrize(
    ("broken", "reply", "reason"),
    [
        ("assess", CallFailed("timeout", "600 s"), "too few assessments"),
        ("criteria", CallRejected("context length", "9000 > 8192"), "criteria: context length"),
        ("verdict", CallRejected("context length", "9000 > 8192"), "verdict: context length"),
        ("criteria", "Accuracy and Depth", "criteria unparseable"),
        ("verdict", "Both are fine.", "verdict unparseable"),
    ],
)
async def test_a_step_that_fails_for_good_rejects_the_row(broken, reply, reason):
    ask = Ask(lambda call: reply if step(call) == broken else judging()(call))
    with pytest.raises(RowRejected) as caught:
        await tournament(JUDGE, QUERY, ["x", "y", "z"], ask)
    assert caught.value.reason == reason
    assert caught.value.detail


async def test_a_missing_engine_is_no_property_of_the_row():
    ask = Ask(
        lambda call: EngineError("j2 is not served") if call.model == "j2" else judging()(call)
    )
    with pytest.raises(EngineError):
        await tournament(JUDGE, QUERY, ["x", "y", "z"], ask)
    assert len(asyncio.all_tasks()) == 1  # nothing is left running


async def test_judgements_survive_json():
    def cut(call):
        if call.model == "j1":
            return Reply((Choice("an assessment without an", "length"),))
        return CallFailed("timeout", "") if call.model == "j2" else judging(lambda a, b: 0.25)(call)

    judgements = await tournament(JUDGE, QUERY, ["x", "y", "z"], Ask(cut))
    again = [
        Judgement.from_json(json.loads(json.dumps(judgement.to_json()))) for judgement in judgements
    ]
    assert [j.to_json() for j in again] == [j.to_json() for j in judgements]
    assert again[0].orders[0].assessments[0].finish_reason == "length"
    assert set(again[0].to_json()) == {
        "a", "b", "p", "p_ab", "p_ba", "criteria", "orders", "lost", "asked_again",
    }  # fmt: skip
    assert Judgement.from_json(tie().to_json()) == tie()


async def test_the_facts_show_a_judge_that_follows_the_position():
    judgements = await tournament(JUDGE, QUERY, ["x", "y", "z"], Ask(judging(lambda a, b: 0.9)))
    facts = facts_of([*judgements, tie()])
    bias = facts["position_bias"]
    assert (bias["first_wins"], bias["verdicts"], bias["hard"]) == (1.0, 6, 0)
    assert bias["first_mean_p"] == pytest.approx(0.9)
    assert (facts["disagreement"], facts["pairs_in_both_orders"]) == (1.0, 3)
    assert facts["criteria"]["Accuracy"] == 3
    assert facts["criteria"]["Safety"] == 0


async def test_a_tally_says_whose_assessments_are_missing_and_how_many_verdicts_are_hard():
    def answer(call):
        if step(call) == "verdict":
            return "A"
        return CallFailed("timeout", "") if call.model == "j3" else judging()(call)

    tally = Tally()
    for judgement in await tournament(JUDGE, QUERY, ["x", "y", "z"], Ask(answer)):
        tally.add(judgement)
    assert tally.left_out == {("j3", "timeout"): 6}
    bias = tally.facts()["position_bias"]
    assert (bias["first_wins"], bias["first_mean_p"]) == (1.0, 1.0)
    assert (bias["verdicts"], bias["hard"]) == (6, 6)


def test_nothing_judged_has_no_shares():
    bias = facts_of([tie()])["position_bias"]
    assert (bias.pop("verdicts"), bias.pop("hard")) == (0, 0)
    assert set(bias.values()) == {None}
    assert facts_of([])["disagreement"] is None


def test_ties_are_no_verdicts_for_the_answer_shown_first():
    """Arena-Hard's [[A=B]] in both orders is neither position bias nor a disagreement."""
    ab, ba = (Order(a, 1 - a, (), (), (), "A", 0.5, soft=False, text="[[A=B]]") for a in (0, 1))
    found = facts_of([merged(ab, ba)] * 10)
    assert found["position_bias"]["first_wins"] == 0.5
    assert found["disagreement"] == 0


async def test_the_facts_of_a_fair_judge():
    def fair(first, second):
        return 0.8 if first < second else 0.2

    facts = facts_of(await tournament(JUDGE, QUERY, ["x", "y", "z"], Ask(judging(fair))))
    assert facts["position_bias"]["first_wins"] == 0.5
    assert facts["position_bias"]["first_mean_p"] == pytest.approx(0.5)
    assert facts["disagreement"] == 0.0


async def test_position_bias_and_disagreement_have_intervals_over_prompts() -> None:
    """Ten prompts whose pairs all go to the first answer, and ten that are judged fairly: twenty
    things were seen, not sixty pairs."""

    def fair(first: str, second: str) -> float:
        return 0.8 if first < second else 0.2

    tally = Tally()
    for verdict in (fair, lambda first, second: 0.9):
        judgements = await tournament(JUDGE, QUERY, ["x", "y", "z"], Ask(judging(verdict)))
        for _ in range(10):
            tally.add(*judgements)
    facts = tally.facts()
    expected = mean([0.0] * 30 + [1.0] * 30, [i // 3 for i in range(60)])
    assert facts["disagreement"] == 0.5
    assert facts["disagreement_low"] == pytest.approx(expected.low)
    assert facts["disagreement_high"] == pytest.approx(expected.high)
    assert facts["disagreement_high"] - facts["disagreement_low"] > 0.4
    bias = facts["position_bias"]
    assert bias["first_wins_low"] < bias["first_wins"] == 0.75 < bias["first_wins_high"]
    assert bias["first_mean_p_low"] < bias["first_mean_p"] < bias["first_mean_p_high"]
