"""Which comparison a ranking needs next, and when its ends are settled."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moaa.judge.outlook import Meeting, Outlook, Rule, calls, first_round, next_round, outlook

RULE = Rule(confidence=0.9, budget=72, first=5, second=4)


def consistent(n: int, odds: float = 0.99) -> dict[Meeting, float]:
    """A judge that always prefers the lower index, by so much."""
    return {(i, j): odds if i < j else 1 - odds for i, j in permutations(range(n), 2)}


def played(
    verdicts: dict[Meeting, float],
    n: int,
    rule: Rule = RULE,
    choosable: range | list[int] | None = None,
) -> tuple[dict[Meeting, float | None], Outlook]:
    seen: dict[Meeting, float | None] = {}
    among = range(n) if choosable is None else choosable
    while meetings := next_round(n, seen, rule, among):
        assert not set(meetings) & set(seen)
        seen |= {meeting: verdicts[meeting] for meeting in meetings}
    return seen, outlook(n, seen, among)


def test_a_judge_that_is_clear_and_consistent_is_asked_less_than_half() -> None:
    seen, view = played(consistent(5), 5)
    assert (view.best, view.worst) == (0, 4)
    assert view.settled(0.9)
    assert sum(calls(seen, RULE).values()) <= 0.45 * 90


def test_a_clear_verdict_needs_no_second_order_and_an_unclear_one_does() -> None:
    clear, _ = played({(0, 1): 0.999, (1, 0): 0.001}, 2)
    assert set(clear) == {(0, 1)}
    unclear, view = played({(0, 1): 0.55, (1, 0): 0.3}, 2)
    assert set(unclear) == {(0, 1), (1, 0)}
    assert (view.best, view.worst) == (0, 1)


def test_position_bias_that_shows_makes_second_orders_worth_asking() -> None:
    fair = {(0, 1): 0.9, (1, 0): 0.1, (2, 3): 0.9}
    biased = {(0, 1): 0.98, (1, 0): 0.95, (2, 3): 0.9}
    sure = {
        name: outlook(4, seen, range(4)).expected[3, 2]
        for name, seen in (("fair", fair), ("biased", biased))
    }
    assert sure["fair"] < 0.3
    assert sure["biased"] > sure["fair"] + 0.2
    gain = outlook(4, biased, range(4)).gains
    assert gain[3, 2] > 0


def test_everything_seen_is_the_exhaustive_ranking_for_sure() -> None:
    view = outlook(3, consistent(3), range(3))
    assert (view.best, view.worst, view.best_sure, view.worst_sure) == (0, 2, 1.0, 1.0)
    assert view.expected == view.gains == {}


def test_the_budget_is_kept_but_for_the_first_round() -> None:
    close = dict.fromkeys(permutations(range(5), 2), 0.5)
    for budget in (0.0, 20.0, 41.0, 72.0):
        seen, view = played(close, 5, Rule(0.9, budget, 5, 4))
        assert sum(calls(seen, RULE).values()) <= max(budget, 10)
        assert not view.settled(0.9)


def test_only_a_choosable_answer_is_looked_for_as_the_best() -> None:
    _, view = played(consistent(5), 5, choosable=[2, 3])
    assert (view.best, view.worst) == (2, 4)


def test_lost_orders_are_not_asked_again_and_count_as_ties() -> None:
    seen: dict[Meeting, float | None] = {(0, 1): None, (1, 0): None}
    assert next_round(2, seen, RULE, range(2)) == []
    view = outlook(2, seen, range(2))
    assert (view.best, view.worst) == (0, 1)
    assert (view.best_sure, view.worst_sure) == (1.0, 1.0)


@given(st.integers(2, 6), st.data())
@settings(max_examples=15, deadline=None)
def test_decisions_hang_on_the_verdicts_alone(n: int, data: st.DataObject) -> None:
    verdicts = {
        meeting: data.draw(st.floats(0, 1), label=str(meeting))
        for meeting in permutations(range(n), 2)
    }
    once, again = played(verdicts, n), played(verdicts, n)
    assert once == again
    assert list(once[0]) == list(again[0])
    assert set(once[0]) | set(once[1].expected) == set(verdicts)


@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_the_first_round_has_every_answer_once(n: int) -> None:
    shown = [index for meeting in first_round(n) for index in meeting]
    assert len(set(shown)) == len(shown) == n // 2 * 2


def test_more_answers_are_asked_in_wider_rounds() -> None:
    seen: dict[Meeting, float | None] = dict.fromkeys(first_round(15), 0.9)
    assert len(next_round(15, seen, Rule(0.9, 1e6, 5, 4), range(15))) == 3
