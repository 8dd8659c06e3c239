"""Checks that the model that answers is the model that was judged: the canary set of a version.

`canary.json` of a version has a few prompts, and the start of the judged model's greedy answers: at
each position the probabilities of the likeliest tokens. A server is asked the same prompts. Its
distributions are compared position by position, up to the first token that differs. The mean total
variation distance shows how far the server is from the judged model.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from moaa.chat.client import Client
from moaa.chat.logprobs import Position
from moaa.chat.message import Call, Message
from moaa.chat.pool import Endpoint
from moaa.errors import MoaaError
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls, Sampling
from moaa.store.bytes import object_of

FILE: Final = "canary.json"
TOKENS: Final = 32
"""The tokens of each answer. Greedy answers of two runs become different sooner or later, at two
tokens that are about equally likely; later tokens are not compared."""
KEPT: Final = 5
"""Tokens of each position that are kept; the others count together as one."""
TOLERANCE: Final = 0.022
"""It lies between what the same weights differ by under other kernels, at most 0.0155 (other
batches, another attention, float32), and weights in 8 bits, 0.0278; SmolLM2-135M,
`tests.bench.canary`."""


@dataclass(frozen=True, slots=True)
class Known:
    """A prompt, and the start of the judged model's answer."""

    messages: tuple[Message, ...]
    text: str
    positions: tuple[Position, ...]
    """The log-probabilities of the likeliest tokens, the written one first."""


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """How far a server is from the judged model."""

    distance: float
    """Mean total variation distance, from 0 to 1, over the compared positions."""
    positions: int
    """The number of compared positions."""
    same_texts: int
    """The number of answers that are the same to their end."""
    prompts: int
    """The number of prompts."""

    @property
    def agrees(self) -> bool:
        """Whether this is the judged model."""
        return self.distance <= TOLERANCE

    def __str__(self) -> str:
        return (
            f"{self.same_texts} of {self.prompts} canary answers are the same, mean distance "
            f"{self.distance:.3f} over {self.positions} tokens (allowed: {TOLERANCE})"
        )


@dataclass(frozen=True, slots=True)
class Canary:
    """The canary set of a version."""

    known: tuple[Known, ...]
    max_tokens: int

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Self | None:
        """Return the set in the table `canary` of an evaluation; None if it is empty."""
        known = tuple(
            Known(tuple(row["messages"]), row["text"], tuple(map(_likeliest, row["positions"])))
            for row in rows
        )
        return cls(known, TOKENS) if known else None

    @classmethod
    def of(cls, text: str | bytes, uri: str) -> Self:
        """Return the set in a `canary.json`. Raises MoaaError if the text is not one."""
        try:
            data = object_of(text)
            known = [
                Known(tuple(each["messages"]), each["text"], tuple(each["positions"]))
                for each in data["known"]
            ]
            return cls(tuple(known), data["max_tokens"])
        except (ValueError, LookupError, TypeError):
            raise MoaaError(
                f"{uri} is not a canary set. Publish the version again, or promote it without one."
            ) from None

    def text(self) -> str:
        """Return the content of `canary.json`."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    def ask(self, endpoint: Endpoint) -> CanaryResult:
        """Ask a server the same prompts, and return how far it is.

        Raises EngineError or CallError if it does not answer, MoaaError if it returns no
        log-probabilities.
        """
        served = asyncio.run(self._served(endpoint))
        distances, same = [], 0
        for known, positions in zip(self.known, served, strict=True):
            if not positions:
                raise MoaaError(f"{endpoint.url} gives no log-probabilities: it cannot be compared")
            distances += compare(known.positions, positions)
            same += [*map(_written, known.positions)] == [*map(_written, positions)]
        mean = sum(distances) / len(distances)
        return CanaryResult(mean, len(distances), same, len(self.known))

    async def _served(self, endpoint: Endpoint) -> list[Sequence[Position]]:
        sampling = Sampling(temperature=0, max_tokens=self.max_tokens)
        async with Client(Calls(), Ledger()) as client:
            client.pool(endpoint.model).add(endpoint)
            replies = await asyncio.gather(
                *(
                    client.send(Call(endpoint.model, each.messages, sampling, logprobs=True))
                    for each in self.known
                )
            )
        return [reply.choices[0].tokens or () for reply in replies]


def compare(known: Sequence[Position], served: Sequence[Position]) -> list[float]:
    """Return the total variation distances of two answers, position by position, up to the first
    token that differs.

    Where one answer ends before the other, they differ.
    """
    found: list[float] = []
    for ours, theirs in zip(known, served, strict=False):
        found.append(_distance(ours, theirs))
        if _written(ours) != _written(theirs):
            return found
    return found if len(known) == len(served) else [*found, 1.0]


def _distance(known: Position, served: Position) -> float:
    """Return the total variation distance over the known tokens, and all others as one."""
    pairs = [
        (math.exp(logprob), math.exp(served.get(token, -math.inf)))
        for token, logprob in known.items()
    ]
    rest = [max(0.0, 1 - sum(column)) for column in zip(*pairs, strict=True)]
    differences = [abs(ours - theirs) for ours, theirs in (*pairs, (rest[0], rest[1]))]
    return math.fsum(differences) / 2


def _likeliest(position: Mapping[str, float]) -> Position:
    """Return the written token, and the likeliest others."""
    written, *others = position
    best = sorted(others, key=lambda token: -position[token])[: KEPT - 1]
    return {token: round(position[token], 4) for token in (written, *best)}


def _written(position: Position) -> str:
    return next(iter(position))
