"""Who is measured: a model, the mixture, or a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moaa.benchmarks.items import EntrantAnswer, Item
from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Ask, Message
from moaa.mixture import respond
from moaa.recipe.schema import Judge, Mixture, Sampling


@dataclass(frozen=True, slots=True)
class Entrant:
    """An entrant, measured under this name. One of `model`, `mixture` and `judge` is set."""

    name: str
    identity: Mapping[str, Any] = field(default_factory=dict)
    """A hash of what decides its answers: weights, fields of the recipe.
    Answers are stored under it."""
    model: str = ""
    """The model's name in calls."""
    mixture: Mixture | None = None
    judge: Judge | None = None

    @property
    def asks(self) -> frozenset[str]:
        """The models that it needs."""
        if self.mixture:
            return self.mixture.models
        return self.judge.models if self.judge else frozenset({self.model})

    async def answer(
        self, item: Item, sampling: Sampling, ask: Ask, controls: Controls = KNOWN
    ) -> tuple[EntrantAnswer, ...]:
        """Return its answers to the turns of `item`; its own answers become the history.

        The mixture answers as in `generate.mixture`, whatever `sampling` is. Raises CallError or
        RowRejected if a turn has no answer.
        """
        messages, found = list(item.messages), []
        for later in (*item.later, None):
            answer = await self._turn(
                messages, item.sampling or sampling, ask, controls, logprobs=item.logprobs
            )
            found.append(answer)
            if later is not None:
                messages = [
                    *messages,
                    Message(role="assistant", content=controls.neutralised(answer.text)),
                    Message(role="user", content=later),
                ]
        return tuple(found)

    async def _turn(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        ask: Ask,
        controls: Controls,
        *,
        logprobs: bool,
    ) -> EntrantAnswer:
        if self.mixture:
            written = await respond(self.mixture, messages, ask, controls)
            return EntrantAnswer(
                tuple(messages), written.text, written.tokens, written.finish_reason
            )
        reply = await ask(self.model, messages, sampling, logprobs=logprobs)
        choice = reply.choices[0]
        return EntrantAnswer(
            tuple(messages),
            choice.text,
            reply.completion_tokens,
            choice.finish_reason,
            choice.tokens or (),
        )
