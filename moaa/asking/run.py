"""Asks models for many conversations at the same time: the journal first, then the engines.

    ask_all({row["id"]: row for row in rows}, method, session, journal)

`method(item, ask)` is a coroutine of the method (`mixture.converse`, `judge.tournament`). Each item
runs at its own speed: a slow proposer delays only its own conversation. Afterwards the results are
in `journal.finished`. A run may be stopped at any moment; the next one continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from moaa.asking import loop
from moaa.asking.asker import Asker
from moaa.asking.schedule import Schedule
from moaa.asking.session import Session
from moaa.chat.message import Ask
from moaa.concurrency import first_error
from moaa.errors import CallError, RowRejected
from moaa.journal import Journal
from moaa.recipe import places

if TYPE_CHECKING:
    from moaa.chat.client import Client

T = TypeVar("T")

BY_TURNS_WINDOW: Final = 20_000
"""How many conversations run at the same time when models take turns.
With more there are fewer turns."""
SHOW_EVERY_S: Final = 0.5


def ask_all(
    items: Mapping[str, T],
    method: Callable[[T, Ask], Awaitable[dict[str, Any]]],
    session: Session,
    journal: Journal,
) -> None:
    """Write a record into `journal.finished` for every item, under its name.

    A record is {"row": …} or {"rejected": {"reason", "detail"}}. Items and replies in the journal
    are not asked again. Engines start at the first call that the journal cannot answer. RowRejected
    and CallError reject their item. Any other error (usually EngineError), SIGTERM and Ctrl-C stop
    the whole run; the journal is flushed before the engines stop.
    """
    finished = journal.finished
    todo = {name: item for name, item in items.items() if name not in finished}
    session.progress.total(len(items))
    session.progress.advance(len(items) - len(todo), journaled=True)
    session.progress.rejected(
        sum("rejected" in finished[name] for name in items if name not in todo)
    )
    if todo:
        loop.run(_Run(todo, method, session, journal).run())


class _Run(Generic[T]):
    """The calls of one stage: a window of conversations, the engines and the view."""

    def __init__(
        self,
        todo: Mapping[str, T],
        method: Callable[[T, Ask], Awaitable[dict[str, Any]]],
        session: Session,
        journal: Journal,
    ) -> None:
        from moaa.chat.client import Client  # loads aiohttp

        self._left = iter(todo.items())
        self._todo = len(todo)
        self._method = method
        self._session = session
        self._journal = journal
        self._client = Client(session.runtime.calls, session.ledger)
        self._schedule = Schedule(
            session, self._client, by_turns=lambda: self._widen(BY_TURNS_WINDOW)
        )
        self._asker = Asker(session, journal, self._schedule, self._client)
        self._conversations = asyncio.TaskGroup()
        self._window = 0

    async def run(self) -> None:
        """Work through all items. Raises the first error itself, not in a group."""
        try:
            async with self._client, asyncio.TaskGroup() as beside:
                engines = beside.create_task(self._schedule.serve())
                view = beside.create_task(_show(self._client, self._session))
                pace = beside.create_task(self._client.pace())
                wide = beside.create_task(self._widen_with_servers())
                caches = self._client.prefix_caches()
                watch = beside.create_task(caches.run())
                try:
                    async with self._conversations:
                        self._widen(places.window(self._session.runtime, 0))
                    await caches.look()  # before the engines stop
                finally:
                    # Before the engines, which take a while to stop. But a store that was waited
                    # for in vain would keep them up for as long again: `close` asks it after them.
                    if not self._journal.failed:
                        self._journal.flush()
                for task in (engines, view, pace, wide, watch):
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _widen_with_servers(self) -> None:
        """Keep enough conversations in progress to keep the servers of every model busy."""
        while self._window < self._todo:
            await asyncio.sleep(SHOW_EVERY_S)
            most = max((pool.most for pool in self._client.pools.values()), default=0)
            self._widen(places.window(self._session.runtime, most))

    def _widen(self, window: int) -> None:
        """Let `window` conversations run at the same time, or all if there are fewer."""
        while self._window < min(window, self._todo):
            self._window += 1
            self._conversations.create_task(self._work_through())

    async def _work_through(self) -> None:
        """Work on one conversation after the other until all are done."""
        for name, item in self._left:
            # A thread empties the journal when the store answers again.
            while self._journal.full:  # noqa: ASYNC110
                await asyncio.sleep(1)
            try:
                row = await self._method(item, self._asker.ask_for(name))
                record: dict[str, Any] = {"row": row}
            except (RowRejected, CallError) as error:
                record = {"rejected": {"reason": error.reason, "detail": error.detail}}
                self._session.progress.rejected()
            self._journal.record_row(name, record)
            self._session.progress.advance()


async def _show(client: Client, session: Session) -> None:
    """Update the view from the client's counters, twice a second.
    Calls themselves do not touch it."""
    shown: dict[str, int] = {}

    def show() -> None:
        for model, pool in client.pools.items():
            tokens = session.ledger.model(model).completion_tokens
            session.progress.flight(model, pool.in_flight)
            session.progress.answered(model, session.ledger.model(model).calls)
            if tokens > shown.get(model, 0):
                session.progress.tokens(model, tokens - shown.get(model, 0))
                shown[model] = tokens

    try:
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            show()
    finally:
        show()
