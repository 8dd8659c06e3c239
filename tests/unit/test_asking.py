"""Asking for many conversations: nothing asked twice, no barrier, turns that end, and a stop at any moment."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager

import pytest

from moaa.asking import ask_all
from moaa.chat import client as chat
from moaa.chat.pool import Endpoint
from moaa.errors import EngineError, RowRejected
from moaa.journal import Journal
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Calls, Engines, Model, Runtime, Sampling
from tests.support.engine_server import EngineServer, slow, status
from tests.support.memory_store import MemoryStore

MODELS = ("a", "b", "c")
SHORT = Sampling(max_tokens=8)


class FakeFleet:
    """Engines of nothing: a model is up when its server of ours is in its pool. Keeps what was started, and checks the rules."""

    def __init__(self, server: EngineServer, capacity: int | None = None, start_s: float = 0.0) -> None:
        self.server, self.capacity, self.start_s = server, capacity, start_s
        self.starts: Counter[str] = Counter()
        self.entered = self.left = 0
        self.leaving = False
        self.broken: dict[str, str] = {}
        self._up: dict[str, Endpoint] = {}

    @asynccontextmanager
    async def start(self, models, runtime, client, store, ledger, progress):
        self._client, self._store = client, store
        self.entered += 1
        for name, model in models.items():
            if model.endpoint:
                client.pool(name).add(Endpoint(model.endpoint.url, name))
        self._own = {name for name, model in models.items() if not model.endpoint}
        try:
            yield self
        finally:
            self.leaving = True
            self.journaled_at_exit = len([uri for uri, _ in store.list(store.root)])
            await self.down(list(self._up))
            self.left += 1

    async def up(self, models) -> None:
        await asyncio.sleep(self.start_s)
        for model in sorted(set(models) & self._own - set(self._up)):
            if model in self.broken:
                raise EngineError(self.broken[model])
            self.starts[model] += 1
            self._up[model] = Endpoint(self.server.url, model)
            assert self.capacity is None or len(self._up) <= self.capacity, f"{set(self._up)} are up at once"
            self._client.pool(model).add(self._up[model])

    async def down(self, models) -> None:
        for model in models:
            endpoint = self._up.pop(model)
            self._client.pool(model).remove(endpoint)
            assert endpoint.in_flight == 0 or self.leaving, f"{model} was stopped at work"


class Bench:
    """All that `ask_all` needs, kept over several attempts at the same work."""

    def __init__(self, server: EngineServer) -> None:
        self.server, self.store = server, MemoryStore()

    def run(self, items, work, *, fleet: FakeFleet | None = None, models=MODELS, schedule="auto", served=(), **calls):
        self.fleet = fleet or FakeFleet(self.server)
        self.ledger, self.progress = Ledger(), Progress.silent()
        described = {m: Model(source=m, endpoint={"url": self.server.url} if m in served else None) for m in models}
        runtime = Runtime(engines=Engines(schedule=schedule), calls=Calls(**{"retries": 2, **calls}))
        self.journal = Journal(self.store, "s3://memory/root/journal", flush_s=60)
        self.journal.open()
        try:
            ask_all(
                items, work, key=str, models=described, runtime=runtime, store=self.store, journal=self.journal,
                ledger=self.ledger, progress=self.progress, start=self.fleet.start,
            )  # fmt: skip
        finally:
            self.journal.close()
        return {item: self.journal.finished[str(item)] for item in items}


@pytest.fixture
def server() -> Iterator[EngineServer]:
    with EngineServer(*MODELS) as running:
        yield running


@pytest.fixture
def bench(server: EngineServer, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(chat, "BACKOFF_S", 0.01)
    return Bench(server)


def user(text: str):
    return [{"role": "user", "content": text}]


async def mixture(item, ask):
    """Two turns of a small mixture: b and c propose, a aggregates."""
    said = str(item)
    for _ in range(2):
        proposals = await asyncio.gather(*(ask(model, user(said), SHORT) for model in ("b", "c")))
        said = (await ask("a", user(" / ".join(p.text for p in proposals)), SHORT)).text
    return {"said": said}


async def one_call(item, ask):
    return {"said": (await ask("a", user(str(item)), SHORT)).text}


def test_every_item_gets_its_row(bench: Bench):
    rows = bench.run(range(30), mixture)
    assert len({record["row"]["said"] for record in rows.values()}) == 30
    assert bench.server.counts == {"a": 60, "b": 60, "c": 60}
    assert {model: use.calls for model, use in bench.ledger.models.items()} == {"a": 60, "b": 60, "c": 60}
    view = bench.progress.view()
    assert (view.done, view.total, view.rejected) == (30, 30, 0)
    assert view.tokens == dict.fromkeys(MODELS, 60 * 8)
    assert view.flight == dict.fromkeys(MODELS, 0)


def test_a_second_attempt_starts_no_engine(bench: Bench):
    first = bench.run(range(10), mixture)
    asked = bench.server.count
    assert bench.run(range(10), mixture) == first
    assert bench.server.count == asked
    assert bench.fleet.entered == 0
    assert bench.progress.view().done == 10


def test_an_attempt_goes_on_where_the_last_one_broke(bench: Bench):
    uninterrupted = Bench(bench.server).run(range(20), mixture)
    asked, answered = bench.server.count, 0

    async def breaks(item, ask):
        nonlocal answered

        async def counting(*args, **kwargs):
            nonlocal answered
            reply = await ask(*args, **kwargs)
            answered += 1
            if answered == 57:
                raise ZeroDivisionError
            return reply

        return await mixture(item, counting)

    with pytest.raises(ZeroDivisionError):
        bench.run(range(20), breaks, in_flight=1)
    sent = sum(use.calls for use in bench.ledger.models.values())
    assert 57 <= sent < 120
    assert bench.run(range(20), mixture) == uninterrupted
    known = sum(use.journal for use in bench.ledger.models.values())
    assert known > 0
    assert sent + sum(use.calls for use in bench.ledger.models.values()) == 120, "an answered call was asked again"
    assert bench.server.count - asked >= 120


def test_conversations_that_the_journal_can_finish_start_no_engine(bench: Bench):
    async def almost(item, ask):
        await ask("a", user(str(item)), SHORT)
        raise KeyError("a bug of the method, found and mended")

    with pytest.raises(KeyError):
        bench.run([1], almost)
    bench.run([1], one_call)
    assert bench.fleet.entered == 0
    assert bench.ledger.models["a"].journal == 1


def test_the_same_call_is_sent_once(bench: Bench):
    bench.server.delay_s = 0.05

    async def same(item, ask):
        return {"said": (await ask("a", user("the same for all"), SHORT)).text}

    rows = bench.run(range(5), same)
    assert len({record["row"]["said"] for record in rows.values()}) == 1
    assert bench.server.count == 1
    assert bench.ledger.events["shared calls"] == 4


def test_who_shares_a_call_takes_it_over_when_the_first_is_cancelled(bench: Bench):
    bench.server.fail(slow(3600))

    async def impatient(item, ask):
        asking = ask("a", user("the same for both"), SHORT)
        if item == 0:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asking, 0.2)
            return {"said": None}
        await asyncio.sleep(0.05)  # the other one has sent it
        return {"said": (await asking).text}

    rows = bench.run(range(2), impatient)
    assert rows[0]["row"]["said"] is None
    assert rows[1]["row"]["said"]
    assert bench.server.count == 2


def test_what_a_row_shares_it_still_has_after_a_crash(bench: Bench):
    bench.server.delay_s = 0.05

    async def same(item, ask):
        await ask("a", user("the same for both"), SHORT)
        if item == 1:
            await asyncio.sleep(0.1)
            raise KeyError
        return {}

    with pytest.raises(KeyError):
        bench.run(range(2), same)

    async def mended(item, ask):
        return {"said": (await ask("a", user("the same for both"), SHORT)).text}

    bench.run(range(2), mended)
    assert bench.server.count == 1


def test_a_slow_proposer_holds_up_its_own_conversation_only(bench: Bench):
    finished = []

    async def work(item, ask):
        row = await mixture(item, ask)
        finished.append(item)
        return row

    async def until_the_others_are_done(request, body) -> None:
        while len(finished) < 39:  # noqa: ASYNC110  # what is watched lives in another thread
            await asyncio.sleep(0.005)

    bench.server.fail(until_the_others_are_done, model="b")
    rows = bench.run(range(40), work, window=4, timeout_s=20, retries=0)
    assert all("row" in record for record in rows.values())


def test_the_window_bounds_the_conversations(bench: Bench):
    now = most = 0

    async def work(item, ask):
        nonlocal now, most
        now += 1
        most = max(most, now)
        row = await mixture(item, ask)
        now -= 1
        return row

    bench.run(range(50), work, window=7)
    assert most == 7


def test_a_failed_call_rejects_its_row_and_no_other(bench: Bench):
    bench.server.fail(status(400, "This model's maximum context length is 16 tokens."), model="a")
    rows = bench.run(range(5), one_call, window=1)
    assert rows[0]["rejected"]["reason"] == "context length"
    assert "16 tokens" in rows[0]["rejected"]["detail"]
    assert all("row" in rows[item] for item in range(1, 5))
    assert bench.progress.view().rejected == 1

    bench.run(range(5), one_call)
    assert bench.progress.view().rejected == 1, "a row rejected by an earlier attempt is shown too"
    assert bench.server.count == 5


def test_a_row_may_reject_itself(bench: Bench):
    async def picky(item, ask):
        if item == 2:
            raise RowRejected("too few proposals", "1 of 3")
        return await one_call(item, ask)

    assert bench.run(range(4), picky)[2] == {"rejected": {"reason": "too few proposals", "detail": "1 of 3"}}


@pytest.mark.parametrize("schedule", ["together", "by-turns"])
def test_an_engine_that_does_not_start_ends_all(bench: Bench, schedule: str):
    fleet = FakeFleet(bench.server)
    fleet.broken["b"] = "model 'b' did not start: out of memory"
    with pytest.raises(EngineError, match="out of memory"):
        bench.run(range(50), mixture, fleet=fleet, schedule=schedule)
    assert fleet.left == 1


def test_a_model_that_is_not_served_ends_all_and_keeps_what_was_answered(bench: Bench):
    bench.server.fail(slow(0.3), model="c")
    bench.server.fail(status(404, "no such model"), model="c")
    with pytest.raises(EngineError, match="no such model"):
        bench.run(range(50), mixture, in_flight=1)
    assert bench.fleet.journaled_at_exit > 0, "the engines were stopped before the journal was flushed"
    asked = bench.server.counts["b"]
    bench.run(range(50), mixture)
    assert bench.server.counts["b"] <= asked + 100 - bench.ledger.models["b"].journal
    assert bench.ledger.models["b"].journal > 0


def test_a_bug_keeps_its_traceback(bench: Bench):
    async def buggy(item, ask):
        await one_call(item, ask)
        return [][item]

    with pytest.raises(IndexError) as raised:
        bench.run(range(3), buggy)
    assert raised.traceback[-1].name == "buggy"


def test_a_model_that_is_not_among_the_served_ones_is_an_error(bench: Bench):
    async def wrong(item, ask):
        return {"said": (await ask("z", user("x"), SHORT)).text}

    with pytest.raises(EngineError, match="'z'"):
        bench.run([1], wrong)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_soon_and_keeps_what_was_answered(bench: Bench, signum: signal.Signals):
    class Told(BaseException):
        """What the stage makes of SIGTERM."""

    def tell(*_) -> None:
        raise Told

    async def hangs(item, ask):
        await ask("a", user(str(item)), SHORT)
        return {"said": (await ask("b", user("hang"), SHORT)).text}

    bench.server.fail(slow(3600), model="b", times=100)
    before = signal.signal(signal.SIGTERM, tell)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signum))
    timer.start()
    started = time.monotonic()
    try:
        with pytest.raises((Told, KeyboardInterrupt)):
            bench.run(range(10), hangs)
        assert signal.getsignal(signal.SIGTERM) is tell
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - started < 3
    assert bench.fleet.left == 1
    assert bench.fleet.journaled_at_exit > 0
    again = Journal(bench.store, "s3://memory/root/journal")
    again.open()
    again.close()
    bench.server.delay_s = 0
    bench.server._faults.clear()
    bench.run(range(10), hangs)
    assert bench.server.counts["a"] == 10


def test_it_works_in_a_thread_too(bench: Bench):
    rows = {}
    thread = threading.Thread(target=lambda: rows.update(bench.run(range(3), mixture)))
    thread.start()
    thread.join(20)
    assert len(rows) == 3
