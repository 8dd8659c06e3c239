"""Engines of a mixture for tests: each model says what it is told to, at the time it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from moaa.gateway.mixtures.members import Traits
from moaa.gateway.mixtures.proposals import Proposals
from moaa.gateway.mixtures.question import read_question
from moaa.gateway.mixtures.run import MixtureRun, Served
from moaa.gateway.mixtures.settings import OnlineMixture
from moaa.gateway.wire import ApiError
from moaa.recipe import Member

QUESTION = {"messages": [{"role": "user", "content": "q"}]}


@dataclass(frozen=True)
class Says:
    """What a model answers: words, of which the first comes after so many seconds. `error` comes
    instead, or after `words` if `late_error`."""

    words: tuple[str, ...] = ("a", " b")
    after_s: float = 0.0
    gap_s: float = 0.0
    error: ApiError | None = None
    late_error: ApiError | None = None
    usage: Mapping[str, Any] | None = None
    finish_reason: str = "stop"

    def body(self, n: int) -> dict[str, Any]:
        return {
            "choices": [
                {
                    "index": at,
                    "message": {"role": "assistant", "content": "".join(self.words)},
                    "finish_reason": self.finish_reason,
                }
                for at in range(n)
            ],
            "usage": self.usage,
        }


class Script:
    """The engines: `calls` has each request, `cancelled` the models whose work was ended."""

    def __init__(self, **models: Says) -> None:
        self.models = models
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.cancelled: list[str] = []

    def of(self, model: str) -> list[Mapping[str, Any]]:
        return [fields for name, fields in self.calls if name == model]

    async def whole(self, model: str, fields: Mapping[str, Any]) -> bytes:
        says = await self._begin(model, fields)
        return json.dumps(says.body(fields.get("n") or 1)).encode()

    async def chunks(self, model: str, fields: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        indices = range(fields.get("n") or 1)
        for at in indices:
            yield _chunk(at, {"role": "assistant", "content": ""})
        says = await self._begin(model, fields)
        for word in says.words:
            for at in indices:
                yield _chunk(at, {"content": word})
            await self._rest(model, says.gap_s)
        if says.late_error:
            raise says.late_error
        for at in indices:
            yield _chunk(at, {}, says.finish_reason)
        yield json.dumps({"choices": [], "usage": says.usage}).encode()

    async def _begin(self, model: str, fields: Mapping[str, Any]) -> Says:
        self.calls.append((model, fields))
        says = self.models[model]
        await self._rest(model, says.after_s)
        if says.error:
            raise says.error
        return says

    async def _rest(self, model: str, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.append(model)
            raise


def _chunk(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    return json.dumps({"id": "x", "model": "theirs", "choices": [choice]}).encode()


def served(*members: Member, **more: Any) -> OnlineMixture:
    """A mixture of m1, m2 and m3, aggregated by agg."""
    members = members or tuple(Member(model=f"m{at}") for at in (1, 2, 3))
    return OnlineMixture(proposers=members, aggregator=Member(model="agg"), **more)


def run(
    script: Script,
    mixture: OnlineMixture | None = None,
    kept: Proposals | None = None,
    tenant: str = "t",
    traits: Mapping[str, Traits] | None = None,
    **body: Any,
) -> MixtureRun:
    """A request to the mixture."""
    known = {name: Traits() for name in script.models} | dict(traits or {})
    return MixtureRun(
        Served("mix", mixture or served(), known, "r1"),
        read_question({**QUESTION, **body}),
        script,
        kept=kept or Proposals(0, 1),
        tenant=tenant,
    )


async def events(of: MixtureRun) -> list[Any]:
    """All that a stream puts out: its JSON, comments as text, and an ApiError that ends it."""
    found: list[Any] = []
    try:
        async for part in of.streamed():
            text = part.decode().strip()
            found.append(json.loads(text[6:]) if text.startswith("data: ") else text)
    except ApiError as error:
        found.append(error)
    return found


def text_of(found: list[Any]) -> str:
    """What a client reads of these events."""
    return "".join(
        choice["delta"].get("content") or ""
        for each in found
        if isinstance(each, dict)
        for choice in each["choices"]
    )


def usage(prompt: int, completion: int, **details: int) -> dict[str, Any]:
    """An engine's count of tokens."""
    found: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
    if "cached" in details:
        found["prompt_tokens_details"] = {"cached_tokens": details["cached"]}
    if "reasoning" in details:
        found["completion_tokens_details"] = {"reasoning_tokens": details["reasoning"]}
    return found


def full(**more: Says) -> Script:
    """Engines of m1, m2, m3 and agg that answer within three seconds, and count."""
    says = {
        "m1": Says(("one",), 1, usage=usage(10, 4, cached=3)),
        "m2": Says(("two",), 2, usage=usage(20, 5)),
        "m3": Says(("three",), 2.5, usage=usage(30, 6)),
        "agg": Says(("the", " answer"), 1, 0.5, usage=usage(100, 7, cached=64, reasoning=2)),
    }
    return Script(**(says | more))
