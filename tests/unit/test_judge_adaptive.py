"""The adaptive judge: the same ends for fewer calls, and the same calls for the same replies."""

from __future__ import annotations

import json
import math
import re
from collections import Counter

import pytest

from moaa.chat.message import Call, Choice, Message, Reply
from moaa.errors import CallRejected, RowRejected
from moaa.judge import adaptive_tournament, tournament
from moaa.labellers import JudgeMixture, Labels
from moaa.preference import pair
from moaa.recipe import Judge, JudgeMember
from moaa.stages.labeller import Thrift
from tests.support.judge_steps import step
from tests.support.scripted import Ask, last

JUDGE = Judge(
    proposers=tuple(JudgeMember(model=f"j{i}") for i in range(3)),
    aggregator=JudgeMember(model="chair"),
    mode="adaptive",
)
EXHAUSTIVE = JUDGE.model_copy(update={"mode": "exhaustive"})
QUERY = [Message(role="user", content="Name a prime.")]
ANSWERS = ["way 3", "way 0", "way 4", "way 1", "way 2"]


class Killed(Exception):
    """The end of an attempt."""


def ways(call: Call) -> tuple[int, int]:
    first, second = re.findall(r"\nway (\d)\n", last(call))
    return int(first), int(second)


def answer(call: Call) -> str | Reply:
    """The lower way is better; the nearer two ways are, the less clear it is."""
    if step(call) == "assess":
        return "fair"
    if step(call) == "criteria":
        return "Relevance, Accuracy, Clarity"
    first, second = ways(call)
    p = 1 / (1 + math.exp(-3.0 * (second - first)))
    tokens = ({"A": math.log(p), "B": math.log(1 - p)},)
    return Reply((Choice("A" if p > 0.5 else "B", tokens=tokens),))


async def test_the_same_pair_comes_out_for_at_most_45_percent_of_the_calls() -> None:
    full, thrifty = Ask(answer), Ask(answer)
    before = await JudgeMixture(EXHAUSTIVE)("p", QUERY, ANSWERS, full)
    labels = await JudgeMixture(JUDGE)("p", QUERY, ANSWERS, thrifty)
    ends = [pair(each.ranking) for each in (before, labels)]
    assert all(each is not None and (each.chosen, each.rejected) == (1, 2) for each in ends)
    assert len(full.calls) == 90
    assert len(thrifty.calls) <= 0.45 * 90
    # What it asks is what the exhaustive judge asks too: one journal serves both.
    assert {call.key for call in thrifty.calls} < {call.key for call in full.calls}
    assert labels.ranking.wins == pytest.approx(before.ranking.wins, abs=0.6)
    assert labels.sure is not None
    assert labels.sure >= JUDGE.confidence
    assert Labels.from_json(5, json.loads(json.dumps(labels.to_json()))) == labels


async def test_replies_that_are_replayed_lead_to_the_same_calls() -> None:
    """Killed after any number of calls, it goes on with those that are missing."""
    whole = Ask(answer)
    await adaptive_tournament(JUDGE, QUERY, ANSWERS, whole)
    known: dict[str, object] = {}
    for stop_after in (1, 7, 19, len(whole.calls)):
        asked: list[Call] = []

        def journaled(call: Call) -> object:
            if call.key not in known:
                if len(asked) == stop_after:  # noqa: B023
                    raise Killed
                asked.append(call)  # noqa: B023
                known[call.key] = answer(call)
            return known[call.key]

        try:
            await adaptive_tournament(JUDGE, QUERY, ANSWERS, Ask(journaled))
        except Killed:
            continue
    assert set(known) == {call.key for call in whole.calls}


@pytest.mark.parametrize(("mode", "picks"), [("per-order", 20), ("per-prompt", 1), ("all", 0)])
async def test_criteria_are_picked_as_often_as_the_recipe_says(mode: str, picks: int) -> None:
    for judge in (EXHAUSTIVE, JUDGE):
        ask = Ask(answer)
        chosen = judge.model_copy(update={"criteria": mode})
        labels = await JudgeMixture(chosen)("p", QUERY, ANSWERS, ask)
        steps = Counter(step(call) for call in ask.calls)
        orders = sum(len(each.orders) for each in labels.judgements)
        assert steps["criteria"] == (orders if mode == "per-order" else picks)
        assert steps["assess"] == 3 * steps["verdict"] == 3 * orders


async def test_a_pair_that_cannot_be_judged_keeps_the_others() -> None:
    def refuses(call: Call) -> object:
        refused = step(call) == "assess" and set(ways(call)) == {1, 2}
        return CallRejected("context length", "9000 > 8192") if refused else answer(call)

    labels = await JudgeMixture(JUDGE)("p", QUERY, ANSWERS, Ask(refuses))
    found = pair(labels.ranking)
    assert found is not None
    assert (found.chosen, found.rejected) == (1, 2)


async def test_a_prompt_whose_best_hangs_on_a_lost_pair_is_rejected() -> None:
    def refuses(call: Call) -> object:
        refused = step(call) == "assess" and set(ways(call)) == {0, 1}
        return CallRejected("context length", "9000 > 8192") if refused else answer(call)

    labels = await JudgeMixture(JUDGE)("p", QUERY, ANSWERS, Ask(refuses))
    assert any(each.lost for each in labels.judgements)
    with pytest.raises(RowRejected, match="depends on a missing verdict"):
        pair(labels.ranking)


async def test_criteria_that_cannot_be_read_cost_their_pair_and_too_many_the_prompt() -> None:
    ask = Ask(lambda call: "all" if step(call) == "criteria" else answer(call))
    with pytest.raises(RowRejected, match="criteria unparseable") as caught:
        await adaptive_tournament(JUDGE, QUERY, ANSWERS, ask)
    assert "of 20 orders" in caught.value.detail


async def test_the_facts_count_calls_as_they_were() -> None:
    ask, thrift = Ask(answer), Thrift()
    thrift.add(await JudgeMixture(JUDGE)("p", QUERY, ANSWERS, ask))
    facts = thrift.facts(JUDGE)
    assert facts["calls_share"] == pytest.approx(len(ask.calls) / 90)
    assert facts["settled"] == 1.0
    assert sum(facts["pairs"].values()) == 10
    await tournament(EXHAUSTIVE, QUERY, ANSWERS, ask)
    assert Thrift().facts(JUDGE)["calls_share"] is None


def test_an_exhaustive_judge_has_the_fingerprint_of_earlier_versions() -> None:
    assert not {"mode", "confidence", "max_calls_share"} & EXHAUSTIVE.model_dump().keys()
    assert {"mode", "confidence", "max_calls_share"} <= JUDGE.model_dump().keys()
