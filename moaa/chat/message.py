"""Messages, calls and replies: the plain data that the method, the journal and the client share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypedDict

from pydantic import Field

from moaa.chat.thoughts import Thought
from moaa.recipe.schema import Sampling

FILTERED = "content filter"
"""The reason of an answer that the server's filter stopped."""
MOST_TOKENS = 2**40
"""More tokens than any answer has: a larger number is an error."""


def count(value: Any) -> int:
    """Return a number of tokens; 0 if the server does not count."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"a number of tokens is {value!r}")
    if not 0 <= value <= MOST_TOKENS:
        raise ValueError(f"a number of tokens is {value!r}")
    return int(value)


class Message(TypedDict):
    """One message of a conversation, in the form of the OpenAI protocol."""

    role: str
    content: str


def opening(system: str | None, user: str) -> list[Message]:
    """Return the first messages of a conversation: the system message, if any, then the user's."""
    first = [Message(role="system", content=system)] if system else []
    return [*first, Message(role="user", content=user)]


def without_system(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with the system text at the start of the first user message, for models
    without a system role.

    Raises ValueError if no user message follows the system message.
    """
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, *others = messages
    if not others or others[0]["role"] != "user":
        raise ValueError("no user message follows the system message")
    first, *rest = others
    return [Message(role="user", content=f"{system['content']}\n\n{first['content']}"), *rest]


class Redraw(Sampling):
    """The sampling of a proposer that differs from an earlier one only in its name. Without it both
    would make the same call, and equal calls share one answer."""

    sample: int = Field(ge=1, exclude=True)
    """How many identical proposers come before this one (≥ 1). It is part of the call's key, not of
    the request."""


@dataclass(frozen=True)
class Call:
    """One question to one model. `choices`: the only texts that it may answer with (the engine
    decodes with a grammar)."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    choices: tuple[str, ...] | None = None
    logprobs: bool = False
    """Whether to ask for the log-probabilities of the most likely tokens at each position."""

    @cached_property
    def key(self) -> str:
        """The call's name in the journal: the first 32 hex digits of the sha256 of everything that
        decides its answer."""
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
        # surrogatepass: data sets contain half surrogate pairs.
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def probe(model: str, system: str | None = None) -> Call:
    """Return a call for one token: does the server answer, does it take system messages?"""
    messages = tuple(opening(system, "Hello"))
    return Call(model, messages, Sampling(temperature=0, max_tokens=1))


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer, without the reasoning that led to it. `finish_reason` is `stop`, `length` (cut at
    max_tokens) or `content_filter` (then there is no text)."""

    text: str
    finish_reason: str = "stop"
    tokens: tuple[dict[str, float], ...] | None = None
    """If asked for: the log-probabilities of the likeliest tokens at each position, the written one
    first (-9999 for tokens that the grammar forbids). The positions cover the end of `text`, never
    the reasoning."""
    thought: Thought = field(default="", compare=False)
    """How the reasoning was marked that the server left in the text and that was taken out. It is
    not in the journal."""

    @property
    def cut(self) -> bool:
        """Whether the answer was cut at max_tokens. Reasoning that was cut leaves no text."""
        return self.finish_reason == "length"

    @property
    def missing(self) -> str:
        """Why there is no text, as a reason to count; empty if there is text."""
        if self.text.strip():
            return ""
        return FILTERED if self.finish_reason == "content_filter" else "empty"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a `Call`: `sampling.n` choices, their tokens, and the seconds from the request
    to the complete answer."""

    choices: tuple[Choice, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].text

    def to_json(self) -> dict[str, Any]:
        """Return the reply as the journal keeps it. Names are short,
        because there may be a million."""
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
        """Return the reply that `to_json` was made from."""
        choices = tuple(Choice(c[0], c[1], tuple(c[2]) if len(c) > 2 else None) for c in data["c"])
        return cls(choices, data["p"], data["o"], data["s"])


class Ask(Protocol):
    """How the method asks models. The answer may come from the journal, an engine or a test.

    Raises `CallError` if this call failed for good, `EngineError` if the model is not available.
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
