"""A promoted model: shares seen at once, a bad revision rolled back, by two gateways once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from moaa.errors import MoaaError
from moaa.gateway.backend import Backend
from moaa.gateway.guard import RequestOutcome
from moaa.gateway.shares import conversation_of
from moaa.gateway.slots import Slots, pointed, pointer_text, revision_of
from moaa.gateway.traffic_split import TrafficSplit, WatchedSlots
from moaa.gateway.wire import ApiError
from moaa.kubernetes.kinds import CONFIG_MAPS, EVENTS, Object
from tests.support.kube_server import KubeServer
from tests.support.waiting import async_until

NAME = "ens-aligned"
OLD, NEW = "s3://moaa/models/aligned/v1", "s3://moaa/models/aligned/v2"


def state(candidate: int) -> Slots:
    slots = Slots().holding("a", OLD).holding("b", NEW)
    return slots.sharing(candidate, "step", "2026-01-01T00:00:00Z")


def backends(*, up: str = "ab") -> dict[str, Backend]:
    return {
        slot: Backend(f"aligned-{slot}", [f"http://10.0.0.{slot}/v1"] if slot in up else [])
        for slot in "ab"
    }


def put(kube: KubeServer, slots: Slots) -> None:
    kube.put(CONFIG_MAPS, {"metadata": {"name": NAME, "namespace": "team"}, "data": slots.data()})


@asynccontextmanager
async def watched(kube: KubeServer, count: int = 1) -> AsyncIterator[list[TrafficSplit]]:
    made, watches = [], []
    for number in range(count):
        promoted = TrafficSplit("aligned", backends(), Slots())
        watch = WatchedSlots(kube.cluster(), NAME, promoted, f"gateway-{number}")
        promoted.on_roll_back.append(watch.roll_back)
        await watch.open()
        made.append(promoted)
        watches.append(watch)
    try:
        yield made
    finally:
        for watch in watches:
            watch.close()
            await watch.written()


def chosen(promoted: TrafficSplit, count: int = 400) -> int:
    """Return how many of `count` conversations the second slot gets."""
    keys = (conversation_of("key", {"prompt": str(n)}) for n in range(count))
    return sum(promoted.choose(key) is promoted.backends["b"] for key in keys)


def events(kube: KubeServer) -> list[Object]:
    return [each for (plural, _), each in kube.objects.items() if plural == EVENTS.plural]


def test_the_state_reads_back_as_it_was_written() -> None:
    slots = state(5)
    assert Slots.of(slots.data()) == slots
    assert Slots.of({}) == Slots()
    assert slots.slots["b"].revision == revision_of(NEW)


@pytest.mark.parametrize("data", [{"share.a": "101"}, {"share.b": "-1"}, {"production": "c"}])
def test_what_a_person_wrote_wrongly_is_named(data: dict[str, str]) -> None:
    with pytest.raises(MoaaError, match=next(iter(data))):
        Slots.of(data)


def test_a_promotion_and_the_way_back() -> None:
    done = state(25).promoted("held", "t")
    assert (done.production, done.shares) == ("b", {"a": 0, "b": 100})
    back = done.rolled_back("worse", "t")
    assert (back.production, back.shares, back.reason) == ("a", {"a": 100, "b": 0}, "worse")
    assert state(25).rolled_back("worse", "t").production == "a"


def test_revisions_of_addresses_that_end_alike_differ() -> None:
    assert revision_of("s3://x/one/final") != revision_of("s3://x/two/final")
    assert revision_of("s3://x/one/v1/") == revision_of("s3://x/one/v1")
    assert pointed(pointer_text(NEW), "s3://x/b.json") == NEW
    with pytest.raises(MoaaError, match="does not point"):
        pointed('{"source": 3}', "s3://x/b.json")


async def test_a_change_of_the_shares_is_seen_at_once(kube: KubeServer) -> None:
    put(kube, state(0))
    async with watched(kube) as [promoted]:
        assert chosen(promoted) == 0
        put(kube, state(50))
        await async_until(lambda: chosen(promoted), "the new share", 2)
        assert 150 < chosen(promoted) < 250
        put(kube, state(0))
        await async_until(lambda: not chosen(promoted), "the roll-back", 2)


async def test_shares_that_cannot_be_read_change_nothing(kube: KubeServer) -> None:
    put(kube, state(50))
    async with watched(kube) as [promoted]:
        before = chosen(promoted)
        bad = {"metadata": {"name": NAME, "namespace": "team"}, "data": {"share.b": "half"}}
        kube.put(CONFIG_MAPS, bad)
        await asyncio.sleep(0.05)
        assert chosen(promoted) == before


async def test_a_config_map_that_is_deleted_changes_nothing(kube: KubeServer) -> None:
    put(kube, state(0))
    async with watched(kube) as [promoted]:
        kube.remove(CONFIG_MAPS, NAME)
        await asyncio.sleep(0.05)
        assert promoted.slots.slots["a"].source == OLD


async def test_two_gateways_roll_a_bad_revision_back_once(kube: KubeServer) -> None:
    put(kube, state(5))
    revision = revision_of(NEW)
    async with watched(kube, 2) as both:
        for _ in range(25):
            for each in both:
                each.seen(RequestOutcome(revision_of(OLD), 200, 0.1))
                each.seen(RequestOutcome(revision, 500))
        assert chosen(both[0]) == chosen(both[1]) == 0
        await async_until(lambda: events(kube), "the Event")
        await async_until(lambda: Slots.of(kube.find(CONFIG_MAPS, NAME)["data"]).shares["b"] == 0)
    [event] = events(kube)
    assert event["reason"] == "MoaaRolledBack"
    assert revision in event["message"]
    assert "failed" in event["message"]
    assert event["involvedObject"]["name"] == NAME
    found = Slots.of(kube.find(CONFIG_MAPS, NAME)["data"])
    assert (found.production, found.shares["a"]) == ("a", 100)
    assert found.reason == event["message"]


async def test_a_share_given_again_is_a_new_trial(kube: KubeServer) -> None:
    put(kube, state(50))
    async with watched(kube) as [promoted]:
        for _ in range(50):
            promoted.seen(RequestOutcome(revision_of(NEW), 500))
        await async_until(lambda: not promoted.slots.slots["b"].share, "the roll-back")
        put(kube, state(50))
        await async_until(lambda: chosen(promoted), "the share")


async def test_nothing_is_rolled_back_to_a_slot_that_is_down() -> None:
    promoted = TrafficSplit("aligned", backends(up="b"), state(50))
    for _ in range(100):
        promoted.seen(RequestOutcome(revision_of(NEW), 500))
    assert chosen(promoted) == 400


async def test_a_hanging_revision_is_rolled_back_too() -> None:
    said: list[str] = []
    promoted = TrafficSplit("aligned", backends(), state(50))
    promoted.on_roll_back.append(lambda revision, reason: said.append(reason))
    for _ in range(50):
        promoted.seen(RequestOutcome(revision_of(OLD), 200, 0.1))
        promoted.seen(RequestOutcome(revision_of(NEW), 200, float("inf")))
    assert "came late" in said[0]


async def test_a_revision_is_called_by_its_slot_or_name() -> None:
    promoted = TrafficSplit("aligned", backends(), state(0))
    assert promoted.called("b") is promoted.called(revision_of(NEW)) is promoted.backends["b"]
    assert promoted.called("v9") is None


async def test_before_the_first_version_nothing_is_woken() -> None:
    promoted = TrafficSplit("aligned", backends(up=""), Slots(), empty=True)
    with pytest.raises(ApiError, match="no version yet") as error:
        promoted.choose(conversation_of("key", {}))
    assert not error.value.may_retry
