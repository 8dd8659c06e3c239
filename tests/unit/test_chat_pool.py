"""The pool gives the place with the least in flight, keeps the order of those who wait, and never
loses a place.

On both loops: asyncio's, which the other tests use, and uvloop's, on which stages run.
"""

from __future__ import annotations

import asyncio

import pytest

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


async def test_an_endpoint_in_doubt_gets_nothing_even_when_the_others_are_full():
    pool = Pool("m", 2)
    a, b = endpoints(pool, "a", "b")
    pool.doubt(a)
    assert [await pool.acquire(), await pool.acquire()] == [b, b]
    third = asyncio.create_task(pool.acquire())
    assert await waits(third)
    pool.answered(a)
    assert await third is a, "nobody was woken when the doubt was over"
    assert await pool.acquire() is a, "it is used in full again"


async def test_a_timer_that_fires_early_wakes_those_who_wait_all_the_same():
    """uvloop's timers count whole milliseconds."""
    pool = Pool("m", 2)
    (a,) = endpoints(pool, "a")
    pool.rest(a, 0.05)
    waiting = asyncio.create_task(pool.acquire())
    pool._serve_after_rest(a)
    assert await waits(waiting)
    assert await asyncio.wait_for(waiting, 2) is a


async def test_a_rest_that_the_server_asked_for_is_kept():
    pool = Pool("m", 1)
    a, b = endpoints(pool, "a", "b")
    pool.rest(a, 60)
    pool.answered(a)  # something that was in flight before
    assert await pool.acquire() is b
    waiting = asyncio.create_task(pool.acquire())
    assert await waits(waiting)
    pool.release(b)
    assert await waiting is b


async def test_the_pool_fails_with_its_last_server():
    pool = Pool("m", 1)
    a, b = endpoints(pool, "a", "b")
    pool.lose(a, "http://a/v1 hangs")
    assert await pool.acquire() is b
    waiting = asyncio.create_task(pool.acquire())
    assert await waits(waiting)
    pool.lose(b, "http://b/v1 hangs")
    with pytest.raises(EngineError, match="model 'm': http://b/v1 hangs"):
        await waiting


async def test_a_server_that_somebody_keeps_up_is_left_to_them():
    pool = Pool("m", 1)
    a = Endpoint("http://a/v1", "m", kept=True)
    pool.add(a)
    pool.doubt(a)
    pool.lose(a, "it hangs")
    assert a.lost.is_set()
    waiting = asyncio.create_task(pool.acquire())
    assert await waits(waiting)
    pool.remove(a)
    (b,) = endpoints(pool, "b")
    assert await waiting is b


def test_a_key_is_never_shown():
    assert "hunter2" not in repr(Endpoint("http://a/v1", "m", "hunter2"))
    assert Endpoint("http://u:hunter2@a:1/v1?key=hunter2", "m").shown == "http://a:1/v1"
