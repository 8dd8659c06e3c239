"""One question of a benchmark, and one turn of an answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moaa.chat.logprobs import Position
from moaa.chat.message import Message
from moaa.recipe.schema import Sampling

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question of a benchmark."""

    id: str
    """Unique in the benchmark. The same for the same question."""
    messages: tuple[Message, ...] = ()
    """The conversation before the first answer; it ends with the user. Empty if nothing is to be
    answered (a pair of given answers, for judges)."""
    later: tuple[str, ...] = ()
    """The user's turns after the first answer."""
    sampling: Sampling | None = None
    """How it is answered. Default: `evaluate.sampling`."""
    group: str = ""
    """Its category or source: items of one group may be alike."""
    logprobs: bool = False
    """Whether the answer keeps the log-probabilities of its tokens."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What comes with the question: reference answers, a baseline's answer, the label of a pair."""

    def to_json(self) -> Row:
        """The item as the digest of the questions sees it."""
        sampling = self.sampling.model_dump(mode="json") if self.sampling else None
        return {
            "id": self.id,
            "messages": list(self.messages),
            "later": list(self.later),
            "sampling": sampling,
            "group": self.group,
            "given": dict(self.given),
            **({"logprobs": True} if self.logprobs else {}),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """One turn of an entrant's answer. `messages` is what it answered to."""

    messages: tuple[Message, ...]
    text: str
    tokens: int
    finish_reason: str
    positions: tuple[Position, ...] = ()
    """If the item asks for them: the likeliest tokens at each position, the written one first."""

    def to_json(self) -> Row:
        """The fields of a row of the table `answers`; `positions` if there are some."""
        return {
            "messages": list(self.messages),
            "text": self.text,
            "tokens": self.tokens,
            "finish_reason": self.finish_reason,
            **({"positions": list(self.positions)} if self.positions else {}),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Answer:
        """The answer of such a row."""
        return cls(
            tuple(row["messages"]),
            row["text"],
            row["tokens"],
            row["finish_reason"],
            tuple(row.get("positions", ())),
        )
