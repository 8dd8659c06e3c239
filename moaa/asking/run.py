"""Asking models for many conversations at once: the journal first, then the engines; stopped at any
moment, and gone on with.

    ask_all(rows, work, key=lambda row: row["id"], models=models, runtime=runtime, store=store,
            journal=journal, ledger=ledger, progress=progress)

`work(item, ask)` is a coroutine of the method (`mixture.converse`, `judge.tournament`); each runs
at its own pace, so a slow proposer of one conversation holds up that conversation alone. What they
made is in `journal.finished` afterwards.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from moaa.asking.schedule import Schedule
from moaa.chat.message import Ask, Call, Message, Reply, without_system
from moaa.errors import CallError, RowRejected
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Model, Runtime, Sampling

if TYPE_CHECKING:
    from moaa.chat.client import Client
    from moaa.engines import Fleet
    from moaa.journal import Journal
    from moaa.store import Store

T = TypeVar("T")
Start = Callable[..., AbstractAsyncContextManager["Fleet"]]

BY_TURNS_WINDOW: Final = 20_000
"""Conversations worked on at the same time where models take turns: the more, the fewer turns."""
SHOW_EVERY_S: Final = 0.5


def ask_all(
    items: Iterable[T],
    work: Callable[[T, Ask], Awaitable[dict[str, Any]]],
    *,
    key: Callable[[T], str],
    models: Mapping[str, Model],
    runtime: Runtime,
    store: Store,
    journal: Journal,
    ledger: Ledger,
    progress: Progress,
    start: Start | None = None,
) -> None:
    """Leaves a record in `journal.finished` for every item: {"row": …}, or {"rejected": {"reason",
    "detail"}}.

    What the journal knows is not asked again; engines start at the first call that it does not
    know. A row or a call that failed for good (RowRejected, CallError) rejects its item. Anything
    else, EngineError first of all, ends everything, as SIGTERM and Ctrl-C do; the journal is
    flushed before the engines stop. `start` makes the fleet; `engines.start` unless given.
    """
    items = list(items)
    finished = [item for item in items if key(item) in journal.finished]
    todo = [item for item in items if key(item) not in journal.finished]
    progress.total(len(items))
    progress.advance(len(finished), journaled=True)
    progress.rejected(sum(["rejected" in journal.finished[key(item)] for item in finished]))
    if todo:
        run(_ask_all(todo, work, key, models, runtime, store, journal, ledger, progress, start))


async def _ask_all(
    todo: list[T],
    work: Callable[[T, Ask], Awaitable[dict[str, Any]]],
    key: Callable[[T], str],
    models: Mapping[str, Model],
    runtime: Runtime,
    store: Store,
    journal: Journal,
    ledger: Ledger,
    progress: Progress,
    start: Start | None,
) -> None:
    from moaa.chat.client import Client

    pending = iter(todo)

    async def work_through() -> None:
        for item in pending:
            name = key(item)
            try:
                record: dict[str, Any] = {"row": await work(item, asker.ask_of(name))}
            except (RowRejected, CallError) as error:
                record = {"rejected": {"reason": error.reason, "detail": error.detail}}
                progress.rejected()
            journal.record_row(name, record)
            progress.advance()

    def widen(window: int) -> None:
        for _ in range(min(window, len(todo)) - len(workers)):
            workers.append(conversations.create_task(work_through()))

    def fleet() -> AbstractAsyncContextManager[Fleet]:
        if start is not None:
            return start(models, runtime, client, store, ledger, progress)
        from moaa import engines

        return engines.start(models, runtime, client, store, ledger, progress)

    workers: list[asyncio.Task[None]] = []
    try:
        async with Client(runtime.calls, ledger) as client, asyncio.TaskGroup() as beside:
            schedule = Schedule(
                models, runtime.engines, fleet, progress, by_turns=lambda: widen(BY_TURNS_WINDOW)
            )
            asker = Asker(models, journal, client, schedule, ledger)
            helpers = [
                beside.create_task(schedule.serve()),
                beside.create_task(_show(client, ledger, progress)),
            ]
            try:
                async with asyncio.TaskGroup() as conversations:
                    widen(runtime.calls.window)
            finally:
                journal.flush()  # before the engines stop, which may take its time
            for helper in helpers:
                helper.cancel()
    except BaseExceptionGroup as group:
        raise _first(group) from None


class Asker:
    """`ask` of each conversation: journal, then the model's turn, then the client. The same call is
    never in flight twice."""

    def __init__(
        self,
        models: Mapping[str, Model],
        journal: Journal,
        client: Client,
        schedule: Schedule,
        ledger: Ledger,
    ) -> None:
        self._no_system_role = frozenset(
            name for name, model in models.items() if not model.system_role
        )
        self._journal = journal
        self._client = client
        self._schedule = schedule
        self._ledger = ledger
        self._asked: dict[str, list[asyncio.Future[Reply | None]]] = {}
        """Calls in flight by key, and who else waits for the same answer."""

    def ask_of(self, conversation: str) -> Ask:
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
            self._journal.record_reply(conversation, call.key, reply)
            return reply

        return ask

    async def _answer(self, call: Call) -> Reply:
        while (sharers := self._asked.get(call.key)) is not None:
            sharer: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
            sharers.append(sharer)
            shared = await sharer
            if shared is not None:
                self._ledger.events["shared calls"] += 1
                return shared
        sharers = self._asked[call.key] = []
        outcome: Reply | Exception | None = None  # None: this one was cancelled, another must send
        try:
            await self._schedule.admit(call.model)
            try:
                outcome = await self._client.send(call)
            finally:
                self._schedule.leave(call.model)
            return outcome
        except Exception as error:
            outcome = error
            raise
        finally:
            del self._asked[call.key]
            for sharer in sharers:
                if sharer.done():
                    continue
                if isinstance(outcome, Exception):
                    sharer.set_exception(outcome)
                else:
                    sharer.set_result(outcome)


async def _show(client: Client, ledger: Ledger, progress: Progress) -> None:
    """Feeds the view from the counters there are, twice a second: nothing is added to the path of a
    call."""
    shown: dict[str, int] = {}

    def show() -> None:
        for model, pool in client.pools.items():
            tokens = ledger.model(model).completion_tokens
            progress.flight(model, pool.in_flight)
            if tokens > shown.get(model, 0):
                progress.tokens(model, tokens - shown.get(model, 0))
                shown[model] = tokens

    try:
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            show()
    finally:
        show()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that came first; those after it are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def run(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run on uvloop. SIGTERM, like Ctrl-C, cancels `main` first and does what it would have
    done when all is put away."""
    import uvloop

    if threading.current_thread() is not threading.main_thread():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    before = signal.getsignal(signal.SIGTERM)
    terminated = False

    async def interruptible() -> T:
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await main

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(interruptible())
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
        if terminated:
            signal.raise_signal(signal.SIGTERM)
