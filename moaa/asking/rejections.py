"""How many of a stage's rows may be lost, and when it is certain that too many are.

A stage fails as soon as its failure is certain: when more rows are lost than the limit allows, or
all of the first rows. The first rows are few and are asked alone. They are chosen at random from
all rows, so that they stand for the others: rows next to each other may fail for the same reason.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from moaa.errors import TooManyRejected

FIRST: Final = 20
"""How many rows are asked before the others. The others start when one of them succeeds with all
members, or when all of them are done."""
MOST_BY_CHANCE: Final = 0.5
"""Up to this limit on rejections, 20 rejected rows of 20 cannot be chance:
0.5^20 is 1 in a million."""
MOST_ABSENT: Final = 0.5
"""A member of the mixture may give nothing in at most this share of the rows."""
FEW_ABSENT: Final = 2
"""A member may miss this many rows in any case: too few to judge."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A part of a row that is lost (all of it: `share` 1), and why."""

    reason: str
    detail: str = ""
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Gaps:
    """What is missing in a row that is kept."""

    losses: tuple[Loss, ...] = ()
    """They count against the limit, each by its share."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Members of the mixture that gave nothing to this row, each with the reason."""


GapsOf: TypeAlias = Callable[[dict[str, Any]], Gaps]
"""Returns what is missing in a row that the method made."""


class Rejections:
    """Counts what the rows of a stage lose. `rejected` and `kept` raise TooManyRejected as soon as
    it is certain that the stage fails."""

    def __init__(self, ids: Sequence[str], limit: float, expected: Collection[str] = ()) -> None:
        """`limit`: the share of rows that may be lost. The `expected` reasons do not count."""
        self._ids = frozenset(ids)
        self._total = len(ids)
        self._limit = limit
        self._expected = frozenset(expected)
        at_random = sorted(ids, key=lambda id: hashlib.sha256(id.encode()).digest())
        self.first: tuple[str, ...] = tuple(at_random[:FIRST]) if len(ids) > FIRST else ()
        """The rows to ask first; none if there are only a few rows."""
        self._others_begin = asyncio.Event()
        if not self.first:
            self._others_begin.set()
        self._done: set[str] = set()
        self._kept: set[str] = set()
        self._losses: dict[str, tuple[Loss, ...]] = {}
        self._lost = 0.0
        self._expectedly: Counter[str] = Counter()
        self._absent: dict[str, dict[str, str]] = {}
        """Member -> row -> reason."""

    @property
    def to_ask_again(self) -> set[str]:
        """The rows that lost something, or that lack a member that fails the stage: another run may
        succeed with them."""
        lacking = (id for member in self._silent_members() for id in self._absent[member])
        return {*self._losses, *lacking}

    @property
    def reasons(self) -> Counter[str]:
        """How many rows lost something, by reason."""
        return Counter(reason for losses in self._losses.values() for reason in _named(losses))

    def take_up(self, finished: Mapping[str, Mapping[str, Any]], gaps_of: GapsOf) -> set[str]:
        """Count the rows that earlier attempts finished. Return the rows to ask again: all that
        lost something, if that is already too much."""
        for id in self._ids & set(finished):
            record = finished[id]
            if "rejected" in record:
                self._reject(id, record["rejected"]["reason"], record["rejected"]["detail"])
            else:
                self._keep(id, gaps_of(record["row"]))
        again = self.to_ask_again if self._too_many() else set()
        if again:
            self._done -= again
            self._kept -= again
            self._losses.clear()
            self._lost = 0.0
            self._absent.clear()
        if self._kept or self._done.issuperset(self.first):
            self._others_begin.set()
        return again

    async def turn(self, id: str) -> None:
        """Wait until this row may be asked."""
        if id not in self.first:
            await self._others_begin.wait()

    def rejected(self, id: str, reason: str, detail: str) -> None:
        """Count a row that is lost."""
        self._reject(id, reason, detail)
        self._raise_if_certain()

    def kept(self, id: str, gaps: Gaps) -> None:
        """Count a row that is kept, and what is missing in it."""
        self._keep(id, gaps)
        if not gaps.absent:
            self._others_begin.set()
        self._raise_if_certain()

    def end(self) -> None:
        """Raise TooManyRejected if no row is left at all."""
        if self._total and not self._kept and self._limit < 1:
            raise TooManyRejected(
                f"No row is left: all {self._total} were rejected.\n"
                + _table([*self._losses.values(), *_alike(self._expectedly)])
                + "  The next stage cannot use a data set without rows. Correct the cause "
                "and run again."
            )

    def _reject(self, id: str, reason: str, detail: str) -> None:
        self._done.add(id)
        if reason in self._expected:
            self._expectedly[reason] += 1
            self._others_begin.set()
        else:
            self._lose(id, (Loss(reason, detail),))

    def _keep(self, id: str, gaps: Gaps) -> None:
        self._done.add(id)
        self._kept.add(id)
        if gaps.losses:
            self._lose(id, gaps.losses)
        for member, reason in gaps.absent.items():
            self._absent.setdefault(member, {})[id] = reason

    def _lose(self, id: str, losses: tuple[Loss, ...]) -> None:
        self._losses[id] = losses
        self._lost += sum(loss.share for loss in losses)

    def _raise_if_certain(self) -> None:
        if error := self._too_many():
            raise error
        if self._done.issuperset(self.first):
            self._others_begin.set()

    def _too_many(self) -> TooManyRejected | None:
        if _passes(self._lost, self._total, self._limit):
            return too_many_rejected(self._losses.values(), self._total, self._limit)
        return self._none_of_the_first() or self._silent()

    def _none_of_the_first(self) -> TooManyRejected | None:
        """Return the error if all of the first rows were rejected, and that cannot be chance."""
        lost = [self._losses[id] for id in self.first if id in self._losses]
        whole = len(lost) == len(self.first) and self._kept.isdisjoint(self.first)
        if not (self.first and whole and self._limit <= MOST_BY_CHANCE):
            return None
        return TooManyRejected(
            f"The first {len(lost)} rows, chosen at random from {self._total}, were all rejected; "
            f"the limit is {self._limit:.1%} (runtime.max_rejected_share).\n{_table(lost)}{_REMEDY}"
        )

    def _silent(self) -> TooManyRejected | None:
        """Return the error if a member of the mixture gives nothing."""
        for member in self._silent_members():
            rows = self._absent[member]
            reason, count = Counter(rows.values()).most_common(1)[0]
            return TooManyRejected(
                f"'{member}' gave nothing in {len(rows)} of {len(self._kept)} rows ({count} "
                f"times: {reason}). Without it the result is not that of the mixture in the "
                "recipe.\n  Correct its model or its sampling (for 'context length': a smaller "
                "max_tokens, a larger max_model_len), or take it out of the recipe."
            )
        return None

    def _silent_members(self) -> list[str]:
        asked = self._kept.intersection(self.first)
        enough = len(asked) >= FIRST // 2 and self._done.issuperset(self.first)
        return [
            member
            for member, rows in self._absent.items()
            if len(rows) > max(MOST_ABSENT * self._total, FEW_ABSENT)
            or (enough and asked <= rows.keys())
        ]


def _passes(lost: float, total: int, limit: float) -> bool:
    """Return whether `lost` is more than the limit; sums of shares are not exact."""
    return lost > limit * total + 1e-9


def too_many_rejected(
    lost: Iterable[Sequence[Loss]], total: int, limit: float
) -> TooManyRejected | None:
    """Return the error, with the table of reasons, if more than the share `limit` of `total` rows
    is lost; else None. `lost`: the losses of each row."""
    rows = list(lost)
    count = sum(loss.share for losses in rows for loss in losses)
    if not _passes(count, total, limit):
        return None
    shown = f"{count:.1f}".removesuffix(".0")
    return TooManyRejected(
        f"{shown} of {total} rows were rejected ({count / total:.1%}); the limit is {limit:.1%} "
        f"(runtime.max_rejected_share).\n{_table(rows)}{_REMEDY}"
    )


def absent(spoke: Iterable[str], left_out: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the names in `left_out` that never answered, with their reasons, for `Gaps.absent`."""
    heard = set(spoke)
    return {gone["name"]: gone["reason"] for gone in left_out if gone["name"] not in heard}


_REMEDY = "  Fix the cause and run again: rows that were answered are not asked again."


def _named(losses: Iterable[Loss]) -> set[str]:
    return {loss.reason for loss in losses}


def _alike(counts: Mapping[str, int]) -> list[tuple[Loss, ...]]:
    return [(Loss(reason),) for reason, count in counts.items() for _ in range(count)]


def _table(rows: Iterable[Sequence[Loss]]) -> str:
    """Return a line for each reason: how many rows, and an example."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for losses in rows:
        counts.update(_named(losses))
        for loss in losses:
            examples[loss.reason] = examples.get(loss.reason) or loss.detail
    return "".join(
        f"  {count:>6}  {reason}"
        + (f"   e.g. {examples[reason][:200]}\n" if examples[reason] else "\n")
        for reason, count in counts.items()
    )
