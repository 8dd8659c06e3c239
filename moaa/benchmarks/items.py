"""One question of a benchmark, and one turn of an answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moaa.artifacts.table import Row
from moaa.chat.logprobs import Position
from moaa.chat.message import Message
from moaa.recipe.schema import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question of a benchmark."""

    id: str
    """Unique in the benchmark, and the same each time for the same question."""
    messages: tuple[Message, ...] = ()
    """The conversation before the first answer; it ends with the user. Empty if there is nothing to
    answer (a pair of given answers, for judges)."""
    later: tuple[str, ...] = ()
    """The user's turns after the first answer."""
    sampling: Sampling | None = None
    """The sampling of its answer. Default: `evaluate.sampling`."""
    group: str = ""
    """Its category or source: items of one group may be similar."""
    logprobs: bool = False
    """Whether the answer keeps the log-probabilities of its tokens."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """The question's extra data: reference answers, a baseline's answer, the label of a pair."""

    def to_json(self) -> Row:
        """Return the fields of the item that the digest of the questions is about."""
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
class EntrantAnswer:
    """One turn of an entrant's answer. `messages` is the conversation that it answered."""

    messages: tuple[Message, ...]
    text: str
    tokens: int
    finish_reason: str
    positions: tuple[Position, ...] = ()
    """If the item asks for them: the likeliest tokens at each position, the written one first."""

    def to_json(self) -> Row:
        """Return the fields of a row of the table `answers`; `positions` only if there are some."""
        return {
            "messages": list(self.messages),
            "text": self.text,
            "tokens": self.tokens,
            "finish_reason": self.finish_reason,
            **({"positions": list(self.positions)} if self.positions else {}),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> EntrantAnswer:
        """Return the answer in such a row."""
        return cls(
            tuple(row["messages"]),
            row["text"],
            row["tokens"],
            row["finish_reason"],
            tuple(row.get("positions", ())),
        )
