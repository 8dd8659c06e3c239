"""What is said to a model and what comes back: the plain data that the method, the journal and the
client share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypedDict

from pydantic import Field

from moaa.recipe.schema import Sampling


class Message(TypedDict):
    """One message of a conversation, as the OpenAI protocol writes it."""

    role: str
    content: str


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with the system message's text before the first user message, for models that
    know no system role."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, first, *rest = messages
    return [Message(role="user", content=f"{system['content']}\n\n{first['content']}"), *rest]


class Redraw(Sampling):
    """The sampling of a proposer that repeats an earlier one in all but its name: equal calls would
    share one answer."""

    sample: int = Field(ge=1, exclude=True)
    """Equal proposers before it, so from 1. It enters the key of the call; a server is not told."""


@dataclass(frozen=True)
class Call:
    """One question to one model. `choices`: the only texts the model may answer with (decoded under
    a grammar)."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    choices: tuple[str, ...] | None = None
    logprobs: bool = False
    """Ask for the log-probabilities of the most likely tokens at each position."""

    @cached_property
    def key(self) -> str:
        """Identity of the call in the journal: sha256 (first 32 hex digits) of all that decides its
        answer."""
        parts: list[Any] = [
            self.model,
            self.messages,
            self.sampling.model_dump(mode="json"),
            self.choices,
            self.logprobs,
        ]
        if isinstance(self.sampling, Redraw):
            parts.append(self.sampling.sample)
        text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[
            :32
        ]  # data sets do hold half pairs


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer. `finish_reason` is `length` where max_tokens cut it."""

    text: str
    finish_reason: str = "stop"
    tokens: tuple[dict[str, float], ...] | None = None
    """Where asked for: for each position the log-probabilities of the likeliest tokens (masked
    tokens: -9999)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a `Call`: `sampling.n` choices, the tokens they took, and the seconds from
    sending to the end."""

    choices: tuple[Choice, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return self.choices[0].text

    def to_json(self) -> dict[str, Any]:
        return {
            "c": [
                [c.text, c.finish_reason, *([list(c.tokens)] if c.tokens is not None else [])]
                for c in self.choices
            ],
            "p": self.prompt_tokens,
            "o": self.completion_tokens,
            "s": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reply:
        choices = tuple(Choice(c[0], c[1], tuple(c[2]) if len(c) > 2 else None) for c in data["c"])
        return cls(choices, data["p"], data["o"], data["s"])


class Ask(Protocol):
    """How the method talks to models. Who answers (journal, engine, a test of ten lines) is not its
    business.

    Raises `CallError` when this call failed for good, `EngineError` when the model is not there at
    all.
    """

    async def __call__(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        choices: Sequence[str] | None = None,
        logprobs: bool = False,
    ) -> Reply: ...
