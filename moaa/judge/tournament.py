"""Compares several answers pair by pair: all pairs in both orders, or only what the ends need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import NamedTuple

from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Ask, Message
from moaa.concurrency import together
from moaa.errors import RowRejected
from moaa.judge.comparison import Indexed, Panel, ReplyRetries
from moaa.judge.judgement import Judgement, Lost, Order, merged
from moaa.judge.outlook import Meeting, Outlook, Rule, next_round, outlook
from moaa.recipe import Judge


async def tournament(
    judge: Judge,
    query: Sequence[Message],
    answers: Sequence[str],
    ask: Ask,
    controls: Controls = KNOWN,
) -> list[Judgement]:
    """Return the judgements of all pairs, made at the same time: (0, 1), (0, 2), …

    For 5 answers and 3 proposers it makes 90 calls. Raises `RowRejected`, with the most frequent
    reason, as soon as more than half of the orders are lost.
    """
    panel = await _with_criteria(Panel.over(judge, query, answers, ask, controls), answers)
    pairs = list(combinations(enumerate(answers), 2))
    lost: list[Lost] = []

    async def judged(a: Indexed, b: Indexed) -> Judgement:
        found = await panel.compare(a, b)
        lost.extend(found.lost)
        _give_up_without(lost, len(pairs))
        return found

    return await together(judged(a, b) for a, b in pairs)


class Adaptive(NamedTuple):
    """The result of an adaptive tournament."""

    judgements: list[Judgement]
    """The judgements of the pairs that were compared at least once. An order that was not asked has
    no p, and is not in `lost`."""
    outlook: Outlook


async def adaptive_tournament(
    judge: Judge,
    query: Sequence[Message],
    answers: Sequence[str],
    ask: Ask,
    controls: Controls = KNOWN,
    choosable: Collection[int] | None = None,
) -> Adaptive:
    """Compare the answers until best and worst are certain enough, or until the budget is used.

    The same replies lead to the same comparisons, so a journal can replay them. The best is chosen
    from the `choosable` (default: all). Raises `RowRejected` like `tournament`.
    """
    panel = await _with_criteria(Panel.over(judge, query, answers, ask, controls), answers)
    rule, n = rule_of(judge, len(answers)), len(answers)
    among = range(n) if choosable is None else choosable
    pairs = {pair: _Meetings(panel, answers, pair) for pair in combinations(range(n), 2)}
    seen: dict[Meeting, float | None] = {}
    while meetings := next_round(n, seen, rule, among):
        for found in await together(pairs[_pair(each)].judged(each) for each in meetings):
            for order in found:
                seen[order.first, order.second] = order.p if isinstance(order, Order) else None
        lost = [each for pair in pairs.values() for each in pair.lost]
        _give_up_without(lost, len(pairs))
    judgements = [pair.judgement() for pair in pairs.values() if pair.orders]
    return Adaptive(judgements, outlook(n, seen, among))


def rule_of(judge: Judge, answers: int) -> Rule:
    """Return the rule by which this judge stops."""
    order = len(judge.proposers) + 1
    picks = {"per-pair": 1, "per-order": 1, "per-prompt": 0, "all": 0}[judge.criteria]
    first, second = order + picks, order + (judge.criteria == "per-order")
    everything = answers * (answers - 1) // 2 * (first + second)
    return Rule(judge.confidence, judge.max_calls_share * everything, first, second)


@dataclass(slots=True)
class _Meetings:
    """The one or two orders of a pair, in the order in which they are asked."""

    panel: Panel
    answers: Sequence[str]
    pair: Meeting
    orders: list[Order | Lost] = field(default_factory=list)
    criteria: tuple[str, ...] | None = None
    tries: ReplyRetries = field(default_factory=ReplyRetries)

    async def judged(self, meeting: Meeting) -> list[Order | Lost]:
        """Return the result of one order. If criteria cannot be read,
        both orders of the pair are lost."""
        a, b = ((index, self.answers[index]) for index in self.pair)
        first, second = (a, b) if meeting == self.pair else (b, a)
        found: list[Order | Lost]
        try:
            if not self.orders:
                self.criteria = await self.panel.criteria_of(a, b, self.tries)
        except RowRejected as error:
            found = [
                Lost(*self.pair, error.reason, error.detail),
                Lost(*self.pair[::-1], error.reason),
            ]
        else:
            found = [await self.panel.in_order(first, second, self.criteria, self.tries)]
        self.orders += found
        return found

    @property
    def lost(self) -> list[Lost]:
        return [each for each in self.orders if isinstance(each, Lost)]

    def judgement(self) -> Judgement:
        """Return the judgement of the pair from its orders so far."""
        known = {(each.first, each.second): each for each in self.orders}
        if len(known) == 2:
            return merged(known[self.pair], known[self.pair[::-1]], self.tries.again)
        (only,) = self.orders
        p = only.p if isinstance(only, Order) else None
        as_asked = (only.first, only.second) == self.pair
        return Judgement(
            *self.pair,
            p_ab=p if as_asked else None,
            p_ba=1 - p if p is not None and not as_asked else None,
            orders=(only,) if isinstance(only, Order) else (),
            lost=(only,) if isinstance(only, Lost) else (),
            asked_again=self.tries.again,
        )


def _pair(meeting: Meeting) -> Meeting:
    return min(meeting), max(meeting)


async def _with_criteria(panel: Panel, answers: Sequence[str]) -> Panel:
    """Return the panel with its criteria, if they are picked once for a prompt: from the first two
    answers. Raises `RowRejected` if none can be read."""
    if panel.judge.criteria != "per-prompt":
        return panel
    names = await panel.pick_criteria(panel.shown(*answers[:2]), ReplyRetries())
    return replace(panel, picked=names)


def _give_up_without(lost: Sequence[Lost], half: int) -> None:
    """Raise RowRejected if more than half of the orders are lost."""
    if len(lost) > half:
        reason, count = Counter(each.reason for each in lost).most_common(1)[0]
        detail = next(each.detail for each in lost if each.reason == reason)
        raise RowRejected(reason, f"{count} of {2 * half} orders: {detail}")
