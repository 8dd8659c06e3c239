"""The result of a mixture as data: proposals, the answer made from them, and what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from moaa.chat.message import Message


@dataclass(frozen=True, slots=True)
class Proposal:
    """One answer of one proposer. `finish_reason` is `length`
    if it was cut at max_tokens; it is kept."""

    name: str
    model: str
    layer: int
    text: str
    finish_reason: str = "stop"

    def to_json(self) -> dict[str, Any]:
        """Return the proposal as an entry of `proposals` in a turn."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A proposal that is missing, and why. `detail` is only for errors."""

    name: str
    layer: int
    reason: str
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `left_out`, without the detail."""
        return {"name": self.name, "layer": self.layer, "reason": self.reason}

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.reason}: {self.detail})"
            if self.detail
            else f"{self.name} ({self.reason})"
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What the aggregator wrote, the proposals of each layer, and the proposers left out."""

    text: str
    finish_reason: str
    layers: tuple[tuple[Proposal, ...], ...]
    left_out: tuple[LeftOut, ...] = ()
    tokens: int = 0
    """The tokens of the text, as the aggregator's server counts them."""

    def to_json(self) -> dict[str, Any]:
        """Return the answer as an entry of `turns` in an sft-data row."""
        return {
            "proposals": [proposal.to_json() for layer in self.layers for proposal in layer],
            "left_out": [missing.to_json() for missing in self.left_out],
            "answer": self.text,
            "finish_reason": self.finish_reason,
        }


@dataclass(frozen=True, slots=True)
class Conversation:
    """All messages (the system message if any, then user and assistant in turn), and the answer of
    each turn."""

    messages: tuple[Message, ...]
    turns: tuple[Answer, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the row that generate records."""
        return {"messages": list(self.messages), "turns": [turn.to_json() for turn in self.turns]}
