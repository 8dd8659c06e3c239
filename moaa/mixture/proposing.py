"""One layer of proposers: all are asked at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from moaa.chat.message import Ask, Message, Redraw, Reply
from moaa.concurrency import together
from moaa.errors import CallError
from moaa.mixture.answers import LeftOut, Proposal
from moaa.mixture.references import as_member
from moaa.recipe import Member, Sampling

LATE = "late"
"""The reason of a proposal that came too late."""

Consult: TypeAlias = Callable[[Member, Sequence[Message], int], Awaitable[Reply]]
"""Asks one member, with its messages, in a layer (counted from 0).

Raises `CallError` if this member has no answer.
"""

Found: TypeAlias = list[Proposal | LeftOut]


def by_model(ask: Ask) -> Consult:
    """Return a way to ask members that needs only their model and their sampling."""

    def consult(member: Member, messages: Sequence[Message], layer: int) -> Awaitable[Reply]:
        return ask(member.model, messages, member.sampling)

    return consult


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a layer waits for its proposers. Times are seconds of the loop's clock.

    After `quorum` proposals it waits for the others for `grace_s`, or for `grace_share` of the time
    that the quorum took, if that is longer; but never after the time `until`.
    """

    quorum: int
    until: float
    grace_s: float = 1.0
    grace_share: float = 0.25
    reached: Callable[[], None] = lambda: None
    """Called when a layer has its quorum."""

    async def gather(
        self, asked: Sequence[Member], answers: Sequence[Coroutine[Any, Any, Found]], layer: int
    ) -> list[Found]:
        """Return what each member gave in time. Late ones are cancelled; all are cancelled when the
        quorum can no longer be reached."""
        loop = asyncio.get_running_loop()
        start, until, enough = loop.time(), self.until, False
        tasks = [loop.create_task(each) for each in answers]
        pending = set(tasks)
        try:
            while pending and self._possible(asked, tasks) >= self.quorum:
                wait_s = max(0.0, until - loop.time())
                done, pending = await asyncio.wait(
                    pending, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                if not enough and _proposals_in(tasks) >= self.quorum:
                    enough = True
                    self.reached()
                    took_s = loop.time() - start
                    grace_s = max(self.grace_s, self.grace_share * took_s)
                    until = min(until, loop.time() + grace_s)
        finally:
            for task in tasks:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
        return [
            task.result() if _ended(task) else [LeftOut(name, layer, LATE) for name in _names(each)]
            for each, task in zip(asked, tasks, strict=True)
        ]

    def _possible(self, asked: Sequence[Member], tasks: Sequence[asyncio.Task[Found]]) -> int:
        """Return how many proposals there are or may still come."""
        waiting = sum(
            member.sampling.n for member, task in zip(asked, tasks, strict=True) if not task.done()
        )
        return waiting + _proposals_in(tasks)


def _ended(task: asyncio.Task[Found]) -> bool:
    return task.done() and not task.cancelled()


def _proposals_in(tasks: Sequence[asyncio.Task[Found]]) -> int:
    """Return how many proposals the finished tasks gave. Raises their first error."""
    return sum(
        isinstance(each, Proposal) for task in tasks if _ended(task) for each in task.result()
    )


async def propose(
    members: Sequence[Member], messages: Sequence[Message], ask: Ask, layer: int = 0
) -> tuple[tuple[Proposal, ...], tuple[LeftOut, ...]]:
    """Return the answers of all members to the same messages, in the members' order; and those left
    out.

    All are asked at the same time. A member with `sampling.n` > 1 gives n proposals from one call
    (Self-MoA), named `label#1` to `label#n`. Members that differ only in their names (also
    Self-MoA) give one each, from separate calls.
    """
    return await proposals_of_layer(members, messages, by_model(ask), layer)


async def proposals_of_layer(
    members: Sequence[Member],
    messages: Sequence[Message],
    consult: Consult,
    layer: int,
    patience: Patience | None = None,
) -> tuple[tuple[Proposal, ...], tuple[LeftOut, ...]]:
    """Return the same as `propose`, asked through `consult`, and within the patience if given."""
    asked = list(with_distinct_keys(members))
    answers = [_proposals_of(member, messages, consult, layer) for member in asked]
    if patience is None:
        found = await together(answers)
    else:
        found = await patience.gather(asked, answers, layer)
    everything = [proposal for proposals in found for proposal in proposals]
    return (
        tuple(p for p in everything if isinstance(p, Proposal)),
        tuple(p for p in everything if isinstance(p, LeftOut)),
    )


def _names(member: Member) -> list[str]:
    """Return the names of a member's proposals."""
    n = member.sampling.n
    return [member.label] if n == 1 else [f"{member.label}#{at}" for at in range(1, n + 1)]


def with_distinct_keys(members: Sequence[Member]) -> Iterator[Member]:
    """Yield the members in order. An exact duplicate (same model, persona and sampling) gets a
    `Redraw` sampling, so that its call has its own journal key and seed."""
    seen: Counter[tuple[str, str, Sampling]] = Counter()
    for member in members:
        asks = (member.model, member.system or "", member.sampling)
        if before := seen[asks]:
            sampling = member.sampling.model_dump()
            if sampling["seed"] is not None:
                # With the same seed a server would repeat itself. The step of 65536 is larger than
                # any series of seeds in a recipe.
                sampling["seed"] += before << 16
            again = Redraw(**sampling, sample=before)
            member = member.model_copy(update={"sampling": again})
        seen[asks] += 1
        yield member


async def _proposals_of(
    member: Member, messages: Sequence[Message], consult: Consult, layer: int
) -> list[Proposal | LeftOut]:
    names = _names(member)
    try:
        reply = await consult(member, as_member(member, messages), layer)
    except CallError as error:
        return [LeftOut(name, layer, error.reason, error.detail) for name in names]
    found: list[Proposal | LeftOut] = []
    for name, choice in zip(names, reply.choices, strict=False):
        if text := choice.text.strip():
            found.append(Proposal(name, member.model, layer, text, choice.finish_reason))
        else:
            found.append(LeftOut(name, layer, choice.missing))
    # Servers that ignore `n` give one choice. The missing ones count like any other failure.
    return found + [LeftOut(name, layer, "not returned") for name in names[len(found) :]]
