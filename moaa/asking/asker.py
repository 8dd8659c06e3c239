"""The `ask` that a stage's method gets: it answers from the journal or from the model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moaa.asking.schedule import Schedule
from moaa.asking.session import Session
from moaa.chat.message import Ask, Call, Message, Reply, without_system
from moaa.journal import Journal
from moaa.recipe.schema import Sampling

if TYPE_CHECKING:
    from moaa.chat.client import Client


class Asker:
    """Answers calls: from the journal if it has the reply, else from the model once it is up. The
    same call is never in flight twice."""

    def __init__(
        self, session: Session, journal: Journal, schedule: Schedule, client: Client
    ) -> None:
        self._no_system_role = frozenset(
            name for name, model in session.models.items() if not model.system_role
        )
        self._not_kept = frozenset(
            name for name, model in session.models.items() if model.task == "embed"
        )
        """Models whose replies are vectors of kilobytes.
        The journal has the row's scores instead."""
        self._ledger = session.ledger
        self._journal = journal
        self._schedule = schedule
        self._client = client
        self._in_flight: dict[str, list[asyncio.Future[Reply | None]]] = {}
        """Calls in flight by key, and the equal calls that wait for the same answer."""

    def ask_for(self, conversation: str) -> Ask:
        """Return the `ask` of one conversation: its replies are recorded under this name."""

        async def ask(
            model: str,
            messages: Sequence[Message],
            sampling: Sampling,
            *,
            choices: Sequence[str] | None = None,
            logprobs: bool = False,
        ) -> Reply:
            if model in self._no_system_role:
                messages = without_system(messages)
            call = Call(
                model, tuple(messages), sampling, tuple(choices) if choices else None, logprobs
            )
            known = self._journal.reply(call.key)
            if known is not None:
                self._ledger.model(model).journal += 1
                return known
            reply = await self._answer(call)
            if model not in self._not_kept:
                self._journal.record_reply(conversation, call.key, reply)
            return reply

        return ask

    async def _answer(self, call: Call) -> Reply:
        """Return the model's answer. Equal calls wait for the first one and share its reply."""
        while (sharers := self._in_flight.get(call.key)) is not None:
            sharer: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
            sharers.append(sharer)
            shared = await sharer
            if shared is not None:
                self._ledger.events["shared calls"] += 1
                return shared
        sharers = self._in_flight[call.key] = []
        # None: this call was cancelled, and one of the calls that share it sends it instead.
        outcome: Reply | Exception | None = None
        try:
            outcome = await self._send(call)
            return outcome
        except Exception as error:
            outcome = error
            raise
        finally:
            del self._in_flight[call.key]
            for sharer in sharers:
                if sharer.done():
                    continue
                if isinstance(outcome, Exception):
                    sharer.set_exception(outcome)
                else:
                    sharer.set_result(outcome)

    async def _send(self, call: Call) -> Reply:
        await self._schedule.admit(call.model)
        try:
            return await self._client.send(call)
        finally:
            self._schedule.leave(call.model)
