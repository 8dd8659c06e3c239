"""The aggregator's answer, chunk by chunk. If the aggregator fails before its first token, another
member's answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from moaa.gateway.mixtures.chunks import Assembled, says_something
from moaa.gateway.mixtures.engines import Engines
from moaa.gateway.mixtures.members import Traits, read_chunk, seen_by
from moaa.gateway.mixtures.question import Question
from moaa.gateway.mixtures.settings import OnlineMixture
from moaa.gateway.mixtures.tally import Spent, Tally
from moaa.gateway.relay import Usage, usage_in
from moaa.gateway.wire import ApiError
from moaa.mixture import LeftOut, Prepared, as_member
from moaa.recipe import Member

_REFUSALS = frozenset({400, 413, 422})
"""Statuses of a request that is wrong itself. Another model would refuse it too."""


@dataclass(slots=True)
class Aggregation:
    """The last call of one request. `answer` collects its choices."""

    mixture: OnlineMixture
    question: Question
    engines: Engines
    traits: Mapping[str, Traits]
    tally: Tally
    answer: Assembled

    async def chunks(self, prepared: Prepared) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of the answer, without its usage.

        Raises ApiError if no member is left to answer, or if the answer breaks off after its first
        token.
        """
        candidates = list(self._candidates(prepared))
        for at, member in enumerate(candidates):
            is_last = at + 1 == len(candidates)
            limit_s = None if is_last else self.mixture.online.first_token_s
            try:
                async with aclosing(self._of(member, prepared, limit_s)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except ApiError as error:
                if is_last or self.answer.choices or error.status in _REFUSALS:
                    raise
                layer = self.mixture.layers - 1
                reason = error.code or f"HTTP {error.status}"
                self.tally.left_out.append(LeftOut(member.label, layer, reason, error.message))

    def _candidates(self, prepared: Prepared) -> Iterator[Member]:
        """Yield the members that may aggregate, in order:
        the aggregator, then members that answered."""
        aggregator = self.mixture.aggregator
        yield aggregator
        answered = {proposal.model for layer in prepared.layers for proposal in layer}
        members = {member.label: member for member in self.mixture.proposers}
        seen = {aggregator.model}
        labels = self.mixture.online.fallback
        for label in members if labels is None else labels:
            member = members[label]
            if member.model in answered and member.model not in seen:
                seen.add(member.model)
                yield aggregator.model_copy(update={"model": member.model, "name": label})

    async def _of(
        self, member: Member, prepared: Prepared, limit_s: float | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        messages = seen_by(self.traits[member.model], as_member(member, prepared.messages))
        fields = {"messages": messages, **self.question.for_aggregator(member.sampling)}
        loop = asyncio.get_running_loop()
        started, usage = loop.time(), None
        held: list[dict[str, Any]] = []  # what comes before the first token: only the role
        try:
            async with (
                asyncio.timeout(limit_s) as limit,
                aclosing(self.engines.chunks(member.model, fields)) as chunks,
            ):
                async for data in chunks:
                    chunk = read_chunk(data, member.model)
                    usage = usage_in(data) or usage
                    choices = chunk.get("choices") or []
                    if not self.answer.choices:
                        held += [chunk] if choices else []
                        if not any(says_something(choice) for choice in choices):
                            continue
                        limit.reschedule(None)
                        choices = [each for before in held for each in before["choices"]]
                        for before in held[:-1]:
                            yield before
                    for choice in choices:
                        self.answer.add(choice)
                    if chunk.get("choices"):
                        yield chunk
        except TimeoutError:
            raise ApiError(
                504, f"'{member.label}' gave no first token within {limit_s:g} s.", "timeout"
            ) from None
        if self.answer.ended < self.question.n:
            raise ApiError(
                502, f"The server of '{member.model}' ended without an answer.", "stream_broken"
            )
        self._count(member, loop.time() - started, usage)

    def _count(self, member: Member, seconds: float, usage: Usage | None) -> None:
        self.tally.members.append(
            Spent(
                member.label,
                member.model,
                "aggregator",
                self.mixture.layers - 1,
                seconds,
                str(self.answer.choices[0]["finish_reason"]),
                usage,
                price=self.traits[member.model].price,
            )
        )
