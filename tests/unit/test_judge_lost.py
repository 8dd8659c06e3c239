"""What cannot be judged costs its order or its pair, and no more: counted, never guessed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moaa.chat.message import Call, Choice, Message, Reply
from moaa.errors import CallRejected, RowRejected
from moaa.judge import Judgement, Lost, Tally, compare, tournament
from moaa.judge.comparison import ATTEMPTS
from moaa.preference import UNDECIDED, pair, rank
from moaa.recipe import Judge, JudgeMember, JudgeSampling
from tests.support.scripted import Ask, last

JUDGE = Judge(
    proposers=(JudgeMember(model="j1"), JudgeMember(model="j2")),
    aggregator=JudgeMember(model="chair", sampling=JudgeSampling(seed=7)),
    verdict="parsed",
)
QUERY = [Message(role="user", content="Name a prime.")]
FOUR = ["seven", "five", "three", "two"]
LOST = Lost(0, 1, "verdict unparseable")


def step(call: Call) -> str:
    if call.model != "chair":
        return "assess"
    return "verdict" if "[[A]]" in last(call) else "criteria"


def asking(
    verdict: Callable[[Call], object], criteria: Callable[[Call], object] | None = None
) -> Ask:
    """A panel whose verdicts and criteria are these; the assessments are fine."""

    def answer(call: Call) -> object:
        match step(call):
            case "assess":
                return "Both are fair."
            case "criteria":
                return criteria(call) if criteria else "Accuracy, Depth, Clarity"
            case _:
                return verdict(call)

    return Ask(answer)


def shows(call: Call, first: str, second: str) -> bool:
    text = last(call)
    return -1 < text.find(f"\n{first}\n") < text.find(f"\n{second}\n")


def longer_first(call: Call) -> str:
    """The answer earlier in `FOUR` is better."""
    first, second = sorted((each for each in FOUR), key=lambda each: _at(call, each))[:2]
    return "[[A]]" if FOUR.index(first) < FOUR.index(second) else "[[B]]"


def _at(call: Call, answer: str) -> int:
    at = last(call).find(f"\n{answer}\n")
    return at if at >= 0 else 1 << 30


async def test_a_verdict_that_cannot_be_read_is_asked_for_again_in_other_words() -> None:
    def tied_once(call: Call) -> str:
        return "[[A]]" if "Attempt 2 of 3" in last(call) else "Both are good.\n[[C]]"

    ask = asking(tied_once)
    judgement = await compare(JUDGE, QUERY, "x", "y", ask)
    assert judgement.lost == ()
    assert judgement.asked_again == 2
    verdicts = [call for call in ask.calls if step(call) == "verdict"]
    assert len({call.key for call in verdicts}) == len(verdicts) == 4
    assert {call.sampling.seed for call in verdicts} == {7, 7 + (1 << 16)}


@pytest.mark.parametrize("broken", ["", "[[C]]", "A or B", "<|im_end|>"])
async def test_a_verdict_that_stays_unreadable_costs_its_order_alone(broken: str) -> None:
    ask = asking(lambda call: broken if shows(call, "x", "y") else "[[B]]")
    judgement = await compare(JUDGE, QUERY, "x", "y", ask)
    (lost,) = judgement.lost
    assert (lost.first, lost.second, lost.reason) == (0, 1, "verdict unparseable")
    assert judgement.asked_again == ATTEMPTS - 1
    assert (judgement.p, judgement.p_ab, judgement.p_ba) == (None, None, 1.0)
    assert judgement.bounds == (0.5, 1.0)
    assert not judgement.disagree
    assert sum(step(call) == "verdict" for call in ask.calls) == ATTEMPTS + 1


async def test_an_empty_reply_under_a_grammar_is_asked_for_again() -> None:
    soft = JUDGE.model_copy(update={"verdict": "soft"})
    replies = iter([Reply((Choice("", "length"),)), *[Reply((Choice("A"),))] * 2])
    ask = Ask(
        lambda call: (
            next(replies)
            if call.choices == ("A", "B")
            else "Accuracy, Depth, Clarity"
            if call.choices
            else "fine"
        )
    )
    judgement = await compare(soft, QUERY, "x", "y", ask)
    assert judgement.asked_again == 1
    assert len(judgement.orders) == 2


async def test_criteria_that_stay_unreadable_cost_their_pair_alone() -> None:
    ask = asking(longer_first, lambda call: "all of them" if shows(call, "five", "three") else
                 "Accuracy, Depth, Clarity")  # fmt: skip
    judgements = await tournament(JUDGE, QUERY, FOUR, ask)
    lost = {(each.a, each.b): [one.reason for one in each.lost] for each in judgements if each.lost}
    assert lost == {(1, 2): ["criteria unparseable"] * 2}
    found = pair(rank(4, judgements))
    assert found is not None
    assert (found.chosen, found.rejected) == (0, 3)


async def test_a_call_that_is_refused_costs_its_order_alone() -> None:
    def refuses(call: Call) -> object:
        too_long = shows(call, "five", "three")
        return CallRejected("context length", "9000 > 8192") if too_long else longer_first(call)

    judgements = await tournament(JUDGE, QUERY, FOUR, asking(refuses))
    tally = Tally()
    for judgement in judgements:
        tally.add(judgement)
    assert tally.lost == {"verdict: context length": 1}
    found = pair(rank(4, judgements))
    assert found is not None
    assert (found.chosen, found.rejected) == (0, 3)


async def test_a_tournament_of_which_more_than_half_is_lost_is_given_up() -> None:
    ask = asking(lambda call: "[[C]]")
    with pytest.raises(RowRejected, match="verdict unparseable") as caught:
        await tournament(JUDGE, QUERY, FOUR, ask)
    assert "of 12 orders" in caught.value.detail


def judged(a: int, b: int, p_ab: float | None, p_ba: float | None) -> Judgement:
    lost = tuple(LOST for p in (p_ab, p_ba) if p is None)
    return Judgement(a, b, p_ab, p_ba, (), lost)


def test_a_prompt_that_hangs_on_a_missing_verdict_is_rejected_with_that_reason() -> None:
    close = [judged(0, 1, None, 0.6), judged(0, 2, 1.0, 1.0), judged(1, 2, 1.0, 1.0)]
    with pytest.raises(RowRejected, match=UNDECIDED):
        pair(rank(3, close))


def test_a_prompt_is_kept_where_the_missing_verdict_is_between_others() -> None:
    middle = [
        judged(a, b, *((None, None) if (a, b) == (1, 2) else (0.9, 0.9)))
        for a, b in combinations(range(4), 2)
    ]
    found = pair(rank(4, middle))
    assert found is not None
    assert (found.chosen, found.rejected) == (0, 3)


P = st.none() | st.floats(0, 1)


@given(st.data(), st.integers(2, 5))
def test_a_pair_that_is_kept_is_the_same_whatever_the_missing_verdicts_are(
    data: Any, n: int
) -> None:
    judgements = [judged(a, b, data.draw(P), data.draw(P)) for a, b in combinations(range(n), 2)]
    cut = data.draw(st.sets(st.integers(0, n - 1)))
    choosable = set(range(n)) - cut
    try:
        found = pair(rank(n, judgements), choosable=choosable)
    except RowRejected:
        assume(False)
        return
    for _ in range(5):
        filled = [
            judged(each.a, each.b, *(
                data.draw(st.floats(0, 1)) if p is None else p for p in (each.p_ab, each.p_ba)
            ))
            for each in judgements
        ]  # fmt: skip
        again = pair(rank(n, filled), choosable=choosable)
        if found is None:
            continue
        assert again is not None
        assert (again.chosen, again.rejected) == (found.chosen, found.rejected)


def test_a_cut_answer_is_never_chosen_but_may_be_rejected() -> None:
    order = [judged(a, b, 1.0, 1.0) for a, b in combinations(range(3), 2)]
    found = pair(rank(3, order), choosable=[1, 2])
    assert found is not None
    assert (found.chosen, found.rejected) == (1, 2)
    assert pair(rank(3, order), choosable=[2]) is None
