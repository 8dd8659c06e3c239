"""One request to a mixture, from the client's question to the last chunk of the answer.

    accept -> proposers in parallel -> quorum, grace or deadline -> aggregator, streamed -> usage

When the client leaves, all calls are cancelled, and the engines stop their work.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from moaa.gateway.mixtures.aggregation import Aggregation
from moaa.gateway.mixtures.chunks import Assembled, event
from moaa.gateway.mixtures.engines import Engines
from moaa.gateway.mixtures.members import Proposers, Traits
from moaa.gateway.mixtures.preview import Delta, Preview
from moaa.gateway.mixtures.proposals import Proposals
from moaa.gateway.mixtures.question import Question
from moaa.gateway.mixtures.settings import OnlineMixture
from moaa.gateway.mixtures.tally import Tally
from moaa.gateway.wire import ApiError
from moaa.mixture import LATE, Patience, Prepared, TooFewProposals, prepare

PULSE_S: Final = 10.0
"""After this many seconds without data a stream gets a comment,
so that proxies and clients keep it open."""
EARLY_S: Final = 0.05
"""Timers may fire this much early (uvloop's by 1 ms)."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Served:
    """A mixture as it is served now: its name, its models' traits, and its revision."""

    name: str
    mixture: OnlineMixture
    traits: Mapping[str, Traits]
    revision: str


class MixtureRun:
    """One request to a mixture. `tenant`: whose kept proposals may be used."""

    def __init__(
        self,
        served: Served,
        question: Question,
        engines: Engines,
        *,
        kept: Proposals,
        tenant: str,
    ) -> None:
        self.name, self.mixture, self.question = served.name, served.mixture, question
        self.tally = Tally(served.revision)
        self.prepared: Prepared | None = None
        self._deltas: asyncio.Queue[Delta | None] = asyncio.Queue()
        shows = question.streamed and question.proposals
        preview = Preview(question.proposals, self._deltas.put_nowait) if shows else None
        self._proposers = Proposers(engines, served.traits, kept, self.tally, tenant, preview)
        self._aggregation = Aggregation(
            served.mixture, question, engines, served.traits, self.tally, Assembled()
        )
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The choices of the answer so far."""
        return self._aggregation.answer.choices

    async def whole(self) -> dict[str, Any]:
        """Return the answer as one body. Raises ApiError if there is none."""
        prepared = await self._prepare()
        async with aclosing(self._aggregation.chunks(prepared)) as chunks:
            async for _ in chunks:
                pass
        choices = [{"logprobs": None, **choice} for choice in self.choices]
        found = {**self._frame("chat.completion"), "choices": choices}
        return {**found, "usage": self.tally.usage_json(), "moaa": self._costs()}

    async def streamed(self) -> AsyncGenerator[bytes, None]:
        """Yield the events of the answer, without the final `[DONE]`. An empty event says that
        headers can be sent: there are enough proposals. Raises ApiError before or after the first
        event."""
        preparing = asyncio.create_task(self._prepare())
        preparing.add_done_callback(lambda _: self._deltas.put_nowait(None))
        try:
            async with aclosing(pulsed(self._seen(), PULSE_S)) as shown:
                async for delta in shown:
                    yield self._comment() if delta is None else self._reasoning(*delta)
            prepared = await preparing
        finally:
            await _end(preparing)
        last: dict[str, Any] | None = None
        async with aclosing(pulsed(self._aggregation.chunks(prepared), PULSE_S)) as chunks:
            async for chunk in chunks:
                if chunk is None:
                    yield b": writing the answer\n\n"
                    continue
                if last is not None:
                    yield event(last)
                last = self._chunk(chunk["choices"])
                if not any(choice.get("finish_reason") for choice in chunk["choices"]):
                    yield event(last)
                    last = None
        if last is None:  # this server sends a chunk after its finish_reason
            last = self._chunk([{"index": 0, "delta": {}, "finish_reason": None}])
        if self.question.wants_usage:
            yield event(last)
            last = self._chunk([]) | {"usage": self.tally.usage_json()}
        yield event(last | {"moaa": self._costs()})

    async def _prepare(self) -> Prepared:
        online = self.mixture.online
        start = asyncio.get_running_loop().time()
        patience = Patience(
            self.mixture.quorum,
            start + online.deadline_s,
            online.grace_s,
            online.grace_share,
            reached=lambda: self._deltas.put_nowait(("", None)),
        )
        try:
            prepared = await prepare(
                self.mixture,
                self.question.history,
                self._proposers,
                place=online.references,
                patience=patience,
            )
        except TooFewProposals as error:
            self.tally.left_out += error.left_out
            late = asyncio.get_running_loop().time() >= patience.until - EARLY_S
            raise self._too_few(error, late=late) from error
        self.tally.left_out += prepared.left_out
        if preview := self._proposers.preview:
            for missing in prepared.left_out:
                preview.ends(missing.name, {"left_out": missing.to_json()})
        self.prepared = prepared
        return prepared

    def _too_few(self, error: TooFewProposals, *, late: bool) -> ApiError:
        """Return the client's error for too few proposals: the members' own reason if they all have
        the same one, else that there is no quorum."""
        reasons = {missing.reason for missing in error.left_out}
        message = f"The mixture '{self.name}' has too few proposals: {error.detail}."
        if late and LATE in reasons:
            seconds = f" within {self.mixture.online.deadline_s:g} s"
            message = message.replace("too few proposals:", f"too few proposals{seconds}:")
            return ApiError(504, message, "quorum", retry=False)
        if reasons == {"context_length_exceeded"}:
            return ApiError(400, message, "context_length_exceeded", "messages")
        if reasons <= {"model_not_up", "model_asleep"}:
            return ApiError(503, message, "quorum", after_s=2)
        if reasons <= {"engine_overloaded", "rate_limit_exceeded"}:
            return ApiError(429, message, "engine_overloaded", after_s=2)
        # The members that answered have cost something: a client must not repeat the request.
        return ApiError(502, message, "quorum", retry=False)

    async def _seen(self) -> AsyncGenerator[Delta, None]:
        """Yield what is shown until the proposals are there."""
        while (delta := await self._deltas.get()) is not None:
            yield delta

    def _comment(self) -> bytes:
        there = sum(spent.role == "proposer" for spent in self.tally.members)
        asked = len(self.mixture.proposers) * (self.mixture.layers - 1)
        return f": {there} of {asked} proposers have answered\n\n".encode()

    def _reasoning(self, text: str, beside: dict[str, Any] | None) -> bytes:
        if not text and beside is None:
            return b""
        delta = {"reasoning": text} if text else {}
        chunk = self._chunk([{"index": 0, "delta": delta, "finish_reason": None}])
        return event(chunk if beside is None else chunk | {"moaa": beside})

    def _costs(self) -> dict[str, Any]:
        found = self.tally.to_json()
        if self.question.proposals and self.prepared is not None:
            found["proposals"] = [p.to_json() for layer in self.prepared.layers for p in layer]
        return found

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._frame("chat.completion.chunk"), "choices": choices}

    def _frame(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.name,
            "system_fingerprint": self.tally.revision,
        }


async def pulsed(source: AsyncIterator[T], every_s: float) -> AsyncGenerator[T | None, None]:
    """Yield the items of a source, and None after each `every_s` seconds without an item."""
    waiting: asyncio.Task[T] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(source))
            done, _ = await asyncio.wait([waiting], timeout=every_s)
            if not done:
                yield None
                continue
            try:
                item = waiting.result()
            except StopAsyncIteration:
                return
            waiting = None
            yield item
    finally:
        if waiting is not None:
            await _end(waiting)
        if isinstance(source, AsyncGenerator):
            await source.aclose()


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source)


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has stopped; its result is ignored."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
