"""What every labeller takes and returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from moaa import preference
from moaa.chat.message import Ask, Message
from moaa.judge import Judgement


@dataclass(frozen=True, slots=True)
class Labels:
    """What a labeller says about the answers to one prompt: their ranking, and what led to it."""

    ranking: preference.Ranking
    judgements: tuple[Judgement, ...] = ()

    @classmethod
    def of_judgements(cls, answers: int, judgements: Sequence[Judgement]) -> Self:
        """The labels of so many answers whose pairs were judged."""
        return cls(preference.rank(answers, judgements), tuple(judgements))

    def to_json(self) -> dict[str, Any]:
        """The labels as the journal keeps them."""
        return {"judgements": [judgement.to_json() for judgement in self.judgements]}

    @classmethod
    def from_json(cls, answers: int, data: Mapping[str, Any]) -> Self:
        """The labels of so many answers that `to_json` gave."""
        judgements = [Judgement.from_json(each) for each in data["judgements"]]
        return cls.of_judgements(answers, judgements)


class Labeller(Protocol):
    """Labels the answers to one prompt. It asks models by `ask` only, so every answer is journaled.

    Raises `RowRejected` if the answers cannot be ranked.
    """

    async def __call__(
        self, prompt: str, query: Sequence[Message], answers: Sequence[str], ask: Ask
    ) -> Labels:
        """The labels of `answers` to the conversation `query`; `prompt` is the prompt's id."""
        ...
