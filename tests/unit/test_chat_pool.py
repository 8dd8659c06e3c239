"""The pool gives the place with the least in flight, keeps the order of those who wait, and never
loses a place.

On both loops: asyncio's, which the other tests use, and uvloop's, on which stages run.
"""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from moaa.chat import pool as module
from moaa.chat.pool import Endpoint, Pool
from moaa.errors import EngineError

pytestmark = pytest.mark.both_loops


def endpoints(pool: Pool, *names: str) -> list[Endpoint]:
    made = [Endpoint(f"http://{name}/v1", "m") for name in names]
    for endpoint in made:
        pool.add(endpoint)
    return made


async def waits(task: asyncio.Task) -> bool:
    await asyncio.sleep(0.01)
    return not task.done()


async def test_the_least_in_flight_is_taken():
    pool = Pool("m", 4)
    a, b, c = endpoints(pool, "a", "b", "c")
    a.in_flight, b.in_flight, c.in_flight = 3, 1, 2
    taken = [await pool.acquire() for _ in range(3)]
    assert taken[0] is b
    assert {taken[1], taken[2]} == {b, c}
    assert (a.in_flight, b.in_flight, c.in_flight) == (3, 3, 3)
    assert pool.in_flight == 9


async def test_no_endpoint_gets_more_than_its_limit():
    pool = Pool("m", 2)
    a, b = endpoints(pool, "a", "b")
    for _ in range(4):
        await pool.acquire()
    assert (a.in_flight, b.in_flight) == (2, 2)
    fifth = asyncio.create_task(pool.acquire())
    assert await waits(fifth)
    pool.release(b)
    assert await fifth is b
    assert (a.in_flight, b.in_flight) == (2, 2)


async def test_those_who_wait_are_served_in_order():
    pool, served = Pool("m", 1), []

    async def call(name: int) -> None:
        endpoint = await pool.acquire()
        served.append(name)
        await asyncio.sleep(0)
        pool.release(endpoint)

    calls = [asyncio.create_task(call(name)) for name in range(5)]
    await asyncio.sleep(0)
    endpoints(pool, "a")
    await asyncio.gather(*calls)
    assert served == [0, 1, 2, 3, 4]


async def test_an_empty_pool_refills_while_calls_wait():
    pool = Pool("m", 1)
    (a,) = endpoints(pool, "a")
    assert await pool.acquire() is a
    pool.remove(a)
    pool.remove(a)
    waiting = asyncio.create_task(pool.acquire())
    pool.release(a)
    assert await waits(waiting), "a removed endpoint was handed out"
    (b,) = endpoints(pool, "b")
    assert await waiting is b


async def test_a_cancelled_caller_leaves_no_place_taken():
    pool = Pool("m", 1)
    (a,) = endpoints(pool, "a")
    await pool.acquire()
    first, second = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    pool.release(a)  # the place is given to the first, which is cancelled before it can take it
    first.cancel()
    assert await second is a
    assert a.in_flight == 1
    third = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    third.cancel()  # and one cancelled while it really waits
    await asyncio.gather(third, return_exceptions=True)
    pool.release(a)
    assert a.in_flight == 0
    assert await pool.acquire() is a


async def test_a_failure_reaches_those_who_wait_and_those_who_come():
    pool = Pool("m", 1)
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    pool.fail(EngineError("it died four times"))
    for acquired in (waiting, pool.acquire()):
        with pytest.raises(EngineError, match="four times"):
            await acquired


async def test_an_endpoint_that_failed_rests_even_when_the_others_are_full():
    pool = Pool("m", 2, rest_s=0.05)
    a, b = endpoints(pool, "a", "b")
    pool.failed(a, "")
    assert [await pool.acquire(), await pool.acquire()] == [b, b]
    third = asyncio.create_task(pool.acquire())
    assert await waits(third)
    assert await asyncio.wait_for(third, 2) is a, "nobody was woken when the rest was over"


async def test_a_timer_that_fires_early_wakes_those_who_wait_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
):
    """uvloop's timers count whole milliseconds: here a clock that is behind makes any loop's too
    early."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.9 * time.monotonic()))
    pool = Pool("m", 2, rest_s=0.05)
    (a,) = endpoints(pool, "a")
    pool.failed(a, "")
    waiting = asyncio.create_task(pool.acquire())
    assert await waits(waiting)
    assert await asyncio.wait_for(waiting, 2) is a


async def test_after_its_rest_an_endpoint_gets_one_request_until_it_answers():
    pool = Pool("m", 4, rest_s=0.01)
    (a,) = endpoints(pool, "a")
    pool.failed(a, "")
    assert await pool.acquire() is a
    second = asyncio.create_task(pool.acquire())
    assert await waits(second)
    pool.answered(a)
    assert await second is a


async def test_many_faults_at_once_are_one(monkeypatch: pytest.MonkeyPatch):
    pool = Pool("m", 64)
    (a,) = endpoints(pool, "a")
    for _ in range(64):  # an engine died: all that it had in flight failed together
        pool.failed(a, "")
    assert a.faults == 1


async def test_a_rest_that_the_server_asked_for_is_kept():
    pool = Pool("m", 1)
    a, b = endpoints(pool, "a", "b")
    pool.failed(a, "", after_s=60)
    assert await pool.acquire() is b
    waiting = asyncio.create_task(pool.acquire())
    assert await waits(waiting)
    pool.release(b)
    assert await waiting is b


async def test_the_pool_fails_when_no_server_was_reached_for_long():
    pool = Pool("m", 1, patience_s=0.05)
    a, b = endpoints(pool, "a", "b")
    pool.failed(a, "refused", reached=False)
    pool.failed(b, "refused", reached=False)
    await asyncio.sleep(0.06)
    pool.failed(b, "HTTP 500")  # b is there, though it fails
    pool.failed(a, "refused", reached=False)
    waiting = asyncio.create_task(pool.acquire())
    assert await waits(waiting)
    pool.remove(b)
    pool.failed(a, "refused", reached=False)
    with pytest.raises(EngineError, match="no server could be reached"):
        await waiting


def test_a_key_is_never_shown():
    assert "hunter2" not in repr(Endpoint("http://a/v1", "m", "hunter2"))
