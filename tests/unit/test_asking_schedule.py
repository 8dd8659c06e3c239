"""Models that take turns: the same rows as together, few starts, never more up than fit."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moaa.asking.schedule import Schedule, next_up
from moaa.errors import EngineError
from moaa.recipe.schema import Model
from tests.support.asking import SHORT, Bench, FakeFleet, mixture, one_call, user
from tests.support.engine_server import slow
from tests.support.sessions import session_of


@pytest.mark.parametrize("capacity", [1, 2])
def test_turns_give_the_same_rows_with_few_starts(bench: Bench, capacity: int):
    together = Bench(bench.server).run(range(60), mixture)
    fleet = FakeFleet(bench.server, capacity=capacity, start_s=0.05)
    assert bench.run(range(60), mixture, fleet=fleet, window=8) == together
    # Two turns of (b, c) then a: each model twice, whatever the order; not once per window or
    # conversation.
    assert max(fleet.starts.values()) <= 2, fleet.starts
    assert fleet.left == 1


def test_turns_where_all_would_fit(bench: Bench):
    rows = bench.run(range(10), mixture, schedule="by-turns")
    assert len(rows) == 10
    assert bench.fleet.starts == {"a": 1, "b": 1, "c": 1}


def test_together_where_not_all_fit_says_what_to_do(bench: Bench):
    with pytest.raises(EngineError, match="by-turns"):
        bench.run(range(3), mixture, fleet=FakeFleet(bench.server, capacity=2), schedule="together")


def test_together_starts_all_at_once(bench: Bench):
    bench.run(range(3), one_call)
    assert bench.fleet.starts == {"a": 1, "b": 1, "c": 1}


def test_models_served_elsewhere_take_no_place(bench: Bench):
    fleet = FakeFleet(bench.server, capacity=1)
    bench.run(range(10), mixture, fleet=fleet, served=("a", "b"))
    assert fleet.starts == {"c": 1}


def test_a_place_goes_over_while_the_other_model_works(bench: Bench):
    """b is done early, a works on for long: c need not wait until a is idle, only until a has as
    little to do as c."""
    order = []

    async def work(item, ask):
        model = "a" if item < 40 else "b" if item < 70 else "c"
        reply = await ask(model, user(str(item)), SHORT)
        order.append(model)
        return {"said": reply.text}

    # c's calls are worth a start after 20 of a's 40: at 1.6 s. The schedule looks every second.
    bench.server.fail(slow(0.08), model="a", times=100)
    fleet = FakeFleet(bench.server, capacity=2)
    bench.run(range(90), work, fleet=fleet, in_flight=1)
    assert fleet.starts == {"a": 1, "b": 1, "c": 1}
    assert order.index("c") < len(order) - 1 - order[::-1].index("a"), (
        "c waited for the last call of a"
    )


def test_turns_go_on_where_the_journal_ends(bench: Bench):
    async def breaks(item, ask):
        await ask("b", user(str(item)), SHORT)
        raise KeyError

    with pytest.raises(KeyError):
        bench.run([0], breaks, fleet=FakeFleet(bench.server, capacity=1))

    async def two(item, ask):
        first = await ask("b", user(str(item)), SHORT)
        return {"said": (await ask("a", user(first.text), SHORT)).text}

    fleet = FakeFleet(bench.server, capacity=1)
    bench.run([0], two, fleet=fleet)
    assert fleet.starts == {"a": 1}, "b was started although its only call was known"


@pytest.mark.parametrize("admitted_first", [True, False])
async def test_a_call_that_is_cancelled_as_it_is_admitted_blocks_no_turn(admitted_first: bool):
    """Were it still counted as in flight, its model would never make room for the other one."""

    class OneAtATime:
        capacity = 1

        async def up(self, models) -> None:
            if "a" in models and admitted_first:  # before the call itself runs again
                asyncio.get_running_loop().call_soon(cancelled.cancel)
            elif "a" in models:
                cancelled.cancel()

        async def down(self, models) -> None:
            pass

    @asynccontextmanager
    async def start(session, client):
        yield OneAtATime()

    models = {name: Model(source=name) for name in ("b", "a")}  # of equals, the last is first
    schedule = Schedule(
        session_of(models, start_fleet=start),
        None,  # type: ignore[arg-type]  # nothing is sent
        by_turns=lambda: None,
        quiet_s=0.001,
        look_again_s=0.01,
    )
    serving = asyncio.create_task(schedule.serve())
    cancelled, other = [asyncio.create_task(schedule.admit(name)) for name in ("a", "b")]
    await asyncio.wait_for(other, 5)
    assert cancelled.cancelled()
    serving.cancel()


def up(*names: str) -> frozenset[str]:
    return frozenset(names)


@pytest.mark.parametrize(
    ("waiting", "in_flight", "now", "capacity", "then"),
    [
        pytest.param({"a": 1, "b": 5, "c": 3}, {}, up(), 1, up("b"), id="most waiting first"),
        pytest.param({"a": 1, "b": 5, "c": 3}, {}, up(), 2, up("b", "c"), id="as many as fit"),
        pytest.param(
            {"a": 4, "b": 4}, {}, up(), 1, up("b"), id="of equals the last, which is needed once"
        ),
        pytest.param({"c": 9}, {"a": 1}, up("a"), 1, up("a"), id="one at work stays"),
        pytest.param({"c": 9}, {"a": 0}, up("a"), 1, up("c"), id="one that is idle goes"),
        pytest.param(
            {"c": 0}, {"a": 0}, up("a"), 1, up("a"), id="nobody waits: nothing is stopped"
        ),
        pytest.param(
            {"c": 9}, {"a": 0, "b": 4}, up("a", "b"), 2, up("b", "c"), id="only the idle one goes"
        ),
        pytest.param(
            {"c": 3},
            {"a": 0, "b": 4},
            up("a", "b"),
            2,
            up("a", "b"),
            id="too little to be worth a start yet",
        ),
        pytest.param(
            {"c": 3},
            {"a": 0, "b": 0},
            up("a", "b"),
            2,
            up("a", "c"),
            id="any little is worth it; the last goes",
        ),
        pytest.param(
            {"c": 1}, {"a": 7}, up("a"), 2, up("a", "c"), id="a free place costs nobody anything"
        ),
        pytest.param(
            {"c": 9, "d": 8},
            {"a": 0, "b": 2},
            up("a", "b"),
            3,
            up("b", "c", "d"),
            id="free place and idle place",
        ),
    ],
)
def test_who_is_up_next(waiting, in_flight, now, capacity, then):
    assert next_up(dict.fromkeys(sorted(now), 0) | waiting, in_flight, now, capacity) == then


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, int], frozenset[str], int]:
    """Calls wait only for models that are not up, and are in flight only at those that are."""
    models = draw(st.permutations("abcde"))
    capacity = draw(st.integers(1, 5))
    now = frozenset(draw(st.lists(st.sampled_from(models), max_size=capacity, unique=True)))
    calls = {model: draw(st.integers(0, 4)) for model in models}
    waiting = {model: 0 if model in now else calls[model] for model in models}
    return waiting, {model: calls[model] for model in now}, now, capacity


@given(situations())
def test_every_turn_keeps_the_rules(situation):
    waiting, in_flight, now, capacity = situation
    then = next_up(waiting, in_flight, now, capacity)
    arriving, leaving = then - now, now - then
    busy = {model for model in now if in_flight[model]}
    assert len(then) <= capacity
    assert busy <= then, "a model was stopped at work"
    assert all(waiting[model] for model in arriving), "a model was started for nothing"
    assert len(leaving) <= len(arriving), "a model was stopped for nothing"
    left_out = [waiting[model] for model in waiting if model not in then and waiting[model]]
    assert all(waiting[model] >= most for model in arriving for most in left_out)
    if left_out and (len(now) < capacity or not busy):
        assert arriving, "calls wait although there is a place"


@given(situations())
def test_all_calls_are_answered_in_the_end(situation):
    waiting, in_flight, now, capacity = situation
    for _ in range(len(waiting) + 1):
        now = next_up(waiting, in_flight, now, capacity)
        in_flight = dict.fromkeys(now, 0)  # all that was in flight, and all that waited for these
        waiting = {model: 0 if model in now else calls for model, calls in waiting.items()}
    assert not any(waiting.values())
