"""A promoted model as clients use it: `NAME`, or `NAME@REVISION` for one slot."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from moaa.gateway.backend import Backend
from moaa.gateway.body import Body
from moaa.gateway.guard import RequestOutcome
from moaa.gateway.proxy import pass_on
from moaa.gateway.readiness import wait_until_up
from moaa.gateway.shares import conversation_of
from moaa.gateway.traffic_split import TrafficSplit
from moaa.gateway.wire import ApiError

if TYPE_CHECKING:
    from moaa.gateway.state import ClientRequest

TOO_LONG_S: Final = 10.0
"""A stream without a first token after this many seconds is late,
if production's times are unknown."""


@dataclass(eq=False, slots=True)
class SplitModel:
    """A promoted model in the catalogue. `guarded`: whether the guard sees the outcomes."""

    promoted: TrafficSplit
    guarded: bool = True

    @property
    def name(self) -> str:
        """The promoted model's name for clients."""
        return self.promoted.name

    def card(self) -> dict[str, Any]:
        """Return what /v1/models says about it: the slots, their shares and states."""
        slots = {
            slot: {"revision": backend.revision, "state": backend.state, "share": share}
            for slot, backend in self.promoted.backends.items()
            for share in [self.promoted.shares[slot]]
        }
        production = self.promoted.backends[self.promoted.slots.production]
        return {"state": production.state, "revision": production.revision, "slots": slots}

    def calls(self, body: Body) -> int:
        """Return 1: each request is one call to an engine."""
        return 1

    def has_revision(self, revision: str) -> bool:
        """Return whether a slot has this name or this revision."""
        return self.promoted.called(revision) is not None

    async def respond(self, asked: ClientRequest) -> web.StreamResponse:
        """Choose the slot of the conversation and pass the request on. Raises ApiError."""
        conversation = conversation_of(asked.caller.name, asked.body.data)
        _, _, revision = asked.body.model.partition("@")
        asked_for = self.promoted.called(revision) if revision else None
        backend = asked_for or self.promoted.choose(conversation)
        await wait_until_up(asked, [backend])
        try:
            return await self._pass_on(asked, backend, conversation)
        except ApiError as error:
            spare = self._spare(backend)
            if asked_for or error.status not in (500, 502, 503) or spare is None:
                raise
            asked.gateway.metrics.retries.add(backend.name, "other_slot")
            return await self._pass_on(asked, spare, conversation)

    def _spare(self, failed: Backend) -> Backend | None:
        """Return the other slot if it can answer instead: it is up and has a share."""
        for slot, each in self.promoted.backends.items():
            if each is not failed and each.state == "ready" and self.promoted.shares[slot] > 0:
                return each
        return None

    async def _pass_on(
        self, asked: ClientRequest, backend: Backend, conversation: str
    ) -> web.StreamResponse:
        if not self.guarded:
            return await pass_on(asked, backend, affinity=conversation)
        with self._watched(asked, backend, conversation) as watch:
            return await pass_on(asked, backend, affinity=conversation, watch=watch)

    @contextmanager
    def _watched(
        self, asked: ClientRequest, backend: Backend, conversation: str
    ) -> Iterator[_Watch]:
        watch = _Watch(self.promoted, backend.revision or "", conversation, asked.body.streamed)
        streamed = asked.body.streamed
        limit_s = self.promoted.guard.late_after_s(streamed) or (TOO_LONG_S if streamed else None)
        if limit_s is not None:
            watch.timer = asyncio.get_running_loop().call_later(limit_s, watch.waited)
        try:
            yield watch
        finally:
            watch.stop()


@dataclass(eq=False, slots=True)
class _Watch:
    """Reports one request to the guard, also while it hangs."""

    promoted: TrafficSplit
    revision: str
    conversation: str
    streamed: bool
    timer: asyncio.TimerHandle | None = None
    late: bool = False

    def first_token(self) -> None:
        """Called when the stream has begun."""
        self.stop()

    def seen(self, outcome: RequestOutcome) -> None:
        """Called when one attempt has ended."""
        first_s = None if self.late else outcome.first_token_s
        whole = replace(
            outcome,
            revision=self.revision,
            conversation=self.conversation,
            first_token_s=first_s,
            streamed=self.streamed,
        )
        self.promoted.seen(whole)

    def waited(self) -> None:
        """Called when no first token has come for too long."""
        self.late = True
        self.promoted.seen(RequestOutcome(self.revision, 200, math.inf, streamed=self.streamed))

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
