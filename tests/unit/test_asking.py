"""Asking for many conversations: each gets its row, none waits for another, and what fails for good
ends all."""

from __future__ import annotations

import asyncio
import threading

import pytest

from moaa import mixture as method
from moaa.errors import EngineError, RowRejected
from moaa.recipe import Member, Mixture, Sampling
from moaa.recipe.places import Places
from tests.support.asking import MODELS, SHORT, Bench, FakeFleet, mixture, one_call, user
from tests.support.engine_server import slow, status


def test_every_item_gets_its_row(bench: Bench):
    rows = bench.run(range(30), mixture)
    assert len({record["row"]["said"] for record in rows.values()}) == 30
    assert bench.server.counts == {"a": 60, "b": 60, "c": 60}
    assert {model: use.calls for model, use in bench.ledger.models.items()} == {
        "a": 60,
        "b": 60,
        "c": 60,
    }
    view = bench.progress.view()
    assert (view.done, view.total, view.rejected) == (30, 30, 0)
    assert view.tokens == dict.fromkeys(MODELS, 60 * 8)
    assert view.flight == dict.fromkeys(MODELS, 0)


def test_the_same_call_is_sent_once(bench: Bench):
    bench.server.delay_s = 0.05

    async def same(item, ask):
        return {"said": (await ask("a", user("the same for all"), SHORT)).text}

    rows = bench.run(range(5), same)
    assert len({record["row"]["said"] for record in rows.values()}) == 1
    assert bench.server.count == 1
    assert bench.ledger.events["shared calls"] == 4


def test_three_equal_proposers_are_three_calls_and_once_asked_are_not_asked_again(bench: Bench):
    same = Sampling(temperature=0.7, max_tokens=8)
    proposers = tuple(
        Member(model="b", name=name, sampling=same) for name in ("one", "two", "three")
    )
    chosen = Mixture(proposers=proposers, aggregator=Member(model="a", sampling=same))

    async def work(item, ask):
        return (await method.converse(chosen, None, [f"question {item}"], ask)).to_json()

    async def breaks(item, ask):
        await work(item, ask)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench.run([1], breaks)
    assert bench.server.counts == {"a": 1, "b": 3}
    bench.run([1], work)
    assert bench.server.counts == {"a": 1, "b": 3}


def test_who_shares_a_call_takes_it_over_when_the_first_is_cancelled(bench: Bench):
    bench.server.fail(slow(3600))

    async def impatient(item, ask):
        asking = asyncio.ensure_future(ask("a", user("the same for both"), SHORT))
        if item == 0:
            while not bench.server.count:  # noqa: ASYNC110  # what is watched lives in another thread
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # the other one waits for it too
            asking.cancel()
            return {"said": None}
        return {"said": (await asking).text}

    rows = bench.run(range(2), impatient)
    assert rows[0]["row"]["said"] is None
    assert rows[1]["row"]["said"]
    assert bench.server.count == 2


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


def test_a_server_that_hangs_ends_the_run_and_rejects_no_row(bench: Bench):
    bench.server.fail(*[slow(0)] * 3, *[slow(3600)] * 100, model="a")
    with pytest.raises(EngineError, match=r"model 'a': .* it hangs"):
        bench.run(range(12), one_call, window=4, timeout_s=0.5, retries=0)
    assert len(bench.journal.finished) == 3
    bench.server.heal()  # it was started again
    rows = bench.run(range(12), one_call, timeout_s=30)
    assert all("row" in record for record in rows.values())
    assert bench.ledger.model("a").calls == 9


def test_a_row_may_reject_itself(bench: Bench):
    async def picky(item, ask):
        if item == 2:
            raise RowRejected("too few proposals", "1 of 3")
        return await one_call(item, ask)

    assert bench.run(range(4), picky)[2] == {
        "rejected": {"reason": "too few proposals", "detail": "1 of 3"}
    }


@pytest.mark.parametrize("schedule", ["together", "by-turns"])
def test_an_engine_that_does_not_start_ends_all(bench: Bench, schedule: str):
    fleet = FakeFleet(bench.server)
    fleet.broken["b"] = "model 'b' did not start: out of memory"
    with pytest.raises(EngineError, match="out of memory"):
        bench.run(range(50), mixture, fleet=fleet, schedule=schedule)
    assert fleet.left == 1


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


def test_it_works_in_a_thread_too(bench: Bench):
    rows = {}
    thread = threading.Thread(target=lambda: rows.update(bench.run(range(3), mixture)))
    thread.start()
    thread.join(20)
    assert len(rows) == 3


def test_a_model_without_a_system_role_gets_none(bench: Bench):
    async def with_system(item, ask):
        messages = [{"role": "system", "content": "Be brief."}, *user("Why?")]
        await ask("a", messages, SHORT)
        await ask("b", messages, SHORT)
        return {}

    bench.run(range(1), with_system, no_system_role=["a"])
    sent = {
        body["model"]: [(m["role"], m["content"]) for m in body["messages"]]
        for body in bench.server.requests
    }
    assert sent == {
        "a": [("user", "Be brief.\n\nWhy?")],
        "b": [("system", "Be brief."), ("user", "Why?")],
    }


def test_more_conversations_run_when_servers_take_more_requests(bench: Bench):
    """300 requests are answered only when all of them are there: a window of 256 would wait for
    ever."""
    count = 300
    together = asyncio.Barrier(count)

    async def waits(request, body):
        await together.wait()

    bench.server.fail(waits, times=count)
    fleet = FakeFleet(bench.server, places=Places(count, count, follows=False))

    async def work(item, ask):
        return {"said": (await ask("a", user(f"question {item}"), SHORT)).text}

    bench.run(range(count), work, fleet=fleet, models=("a",), timeout_s=60)
    assert bench.server.at_once == count
