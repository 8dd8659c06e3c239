"""The arguments and the result of every labeller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

from moaa import preference
from moaa.chat.message import Ask, Message
from moaa.concurrency import together
from moaa.errors import CallError, RowRejected
from moaa.judge import Judgement

TOO_FEW = "fewer than two answers with a score"


class Refused(NamedTuple):
    """An answer that could not be scored, and why."""

    answer: int
    """Its index."""
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Labels:
    """What a labeller says about the answers to one prompt: their ranking, and what led to it."""

    ranking: preference.Ranking
    judgements: tuple[Judgement, ...] = ()
    """The judgements of pairs, from a labeller that compares answers."""
    scores: tuple[float | None, ...] = ()
    """The score of each answer, from a labeller that scores them; None for answers in `refused`."""
    refused: tuple[Refused, ...] = ()
    expected: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """For each order that an adaptive judge did not ask for: the probability that its first answer
    is better."""
    sure: float | None = None
    """From an adaptive judge: the probability of the less certain end of the ranking."""

    @classmethod
    def of_judgements(
        cls,
        answers: int,
        judgements: Sequence[Judgement],
        expected: Mapping[tuple[int, int], float] | None = None,
        sure: float | None = None,
    ) -> Self:
        """Return the labels of answers whose pairs were judged: all pairs, or those that an
        adaptive judge chose, with its expectation of the others. `answers`: how many there are."""
        ranking = preference.rank(answers, judgements, expected)
        return cls(ranking, tuple(judgements), expected=expected or {}, sure=sure)

    @classmethod
    def of_scores(cls, scores: Sequence[float | None], refused: Sequence[Refused] = ()) -> Self:
        """Return the labels of scored answers. Raises `RowRejected`
        if fewer than two have a score."""
        if sum(score is not None for score in scores) < 2:
            reasons = "; ".join(sorted({f"{each.reason}: {each.detail}" for each in refused}))
            raise RowRejected(TOO_FEW, f"of {len(scores)}: {reasons}")
        return cls(preference.by_scores(scores), (), tuple(scores), tuple(refused))

    def to_json(self) -> dict[str, Any]:
        """Return the labels in the form of the journal."""
        if self.scores:
            refused = [each._asdict() for each in self.refused]
            return {"scores": list(self.scores), "refused": refused}
        found: dict[str, Any] = {"judgements": [each.to_json() for each in self.judgements]}
        if self.sure is not None:
            found["expected"] = [[*meeting, p] for meeting, p in self.expected.items()]
            found["sure"] = self.sure
        return found

    @classmethod
    def from_json(cls, answers: int, data: Mapping[str, Any]) -> Self:
        """Return the labels that `to_json` was made from. `answers`: how many there are."""
        if "scores" in data:
            return cls.of_scores(data["scores"], [Refused(**each) for each in data["refused"]])
        judgements = [Judgement.from_json(each) for each in data["judgements"]]
        expected = {(first, second): p for first, second, p in data.get("expected", ())}
        return cls.of_judgements(answers, judgements, expected, data.get("sure"))


class Labeller(Protocol):
    """Labels the answers to one prompt. It asks models only through `ask`, so every reply is
    journaled.

    Raises `RowRejected` if the answers cannot be ranked.
    """

    async def __call__(
        self,
        prompt: str,
        query: Sequence[Message],
        answers: Sequence[str],
        ask: Ask,
        choosable: Collection[int] | None = None,
    ) -> Labels:
        """Return the labels of `answers` to the conversation `query`; `prompt` is the prompt's id.
        Only a `choosable` answer may be the best (default: any)."""
        ...


async def scored(answers: Sequence[str], score: Callable[[str], Awaitable[float]]) -> Labels:
    """Return the labels of answers that `score` scores, all at the same time.

    An answer whose call fails for good (usually it is too long) is refused: it is neither the best
    nor the worst.
    """
    refused: list[Refused] = []

    async def attempt(index: int, answer: str) -> float | None:
        try:
            return await score(answer)
        except CallError as error:
            refused.append(Refused(index, error.reason, error.detail))
            return None

    scores = await together(attempt(index, answer) for index, answer in enumerate(answers))
    return Labels.of_scores(scores, sorted(refused))
