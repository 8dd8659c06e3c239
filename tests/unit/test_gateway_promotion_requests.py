"""A step of a promotion ends when the version has answered enough requests, as gateways count."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from moaa.gateway import traffic_split as counting
from moaa.gateway.backend import Backend
from moaa.gateway.guard import RequestOutcome
from moaa.gateway.slots import Slots, revision_of
from moaa.gateway.traffic_split import TrafficSplit, WatchedSlots, count, roll_back
from moaa.kubernetes.kinds import CONFIG_MAPS
from moaa.recipe.load import load_file
from moaa.recipe.promote import Promote
from moaa.stages.promote import part_of
from tests.support.kube_server import KubeServer
from tests.support.paths import DEMO
from tests.support.promotions import V1, V2, World, promoted
from tests.support.split_models import gateway_of, on_cluster
from tests.support.streaming_engine import StreamingEngine
from tests.support.waiting import async_until

NAME = "ens-aligned"
OLD, NEW = revision_of(V1), revision_of(V2)


@pytest.fixture
def world(world: World) -> World:
    promoted(world, V1)
    return world


def counted(world: World, after_s: float, **gateways: int) -> None:
    """Let gateways write their counts at this time after now."""

    def write() -> None:
        for name, answered in gateways.items():
            count(world.cluster, NAME, world.state.trial, name, answered)

    world.at.append((world.clock.now + after_s, write))


def promote(world: World, enough: int | None) -> list[str]:
    """Promote V2, each step for 10 s at most; return the reasons that the shares had."""
    reasons: list[str] = []
    follow = world.kube.after_patch

    def note(changed: dict[str, dict[str, str]]) -> None:
        follow(changed)
        reason = changed.get("data", {}).get("reason", "")
        if reason and reason not in reasons:
            reasons.append(reason)

    world.kube.after_patch = note
    world.promotion.promote(world.store, V2, Promote(hold_s=10, hold_requests=enough))
    return reasons


def test_the_counts_of_two_gateways_end_a_step_together(world: World) -> None:
    began = world.clock.now
    counted(world, 5, one=30, two=20)
    counted(world, 9, one=30, two=70)
    assert promote(world, 100)[1:] == [
        f"step: {NEW} gets 5 %",
        f"step: {NEW} held 5 % for 9 s, 100 requests, and gets 25 %",
        f"step: {NEW} held 25 % for 10 s, 0 of 100 requests counted, and gets 100 %",
        f"promoted: {NEW} held 100 % for 10 s, 0 of 100 requests counted",
    ]
    assert world.clock.now - began == 29


@pytest.mark.parametrize(
    ("answered", "enough", "said"),
    [
        (12, 200, "held 5 % for 10 s, 12 of 200 requests counted"),
        (12, None, "held 5 % for 10 s, 12 requests"),
        (1, None, "held 5 % for 10 s, 1 request"),
        (0, None, "held 5 % for 10 s, no request counted"),
    ],
)
def test_with_fewer_the_time_ends_it_and_the_reason_says_how_many(
    world: World, answered: int, enough: int | None, said: str
) -> None:
    if answered:
        counted(world, 8, one=answered)
    assert promote(world, enough)[2] == f"step: {NEW} {said}, and gets 25 %"


def test_no_count_outlives_its_share(world: World) -> None:
    """Not that of a gateway, nor one that a hand has written."""
    patch = {"data": {"requests.by-hand": "many", "requests.old": "500"}}
    world.cluster.patch(CONFIG_MAPS, NAME, patch)
    assert world.state.answered == 500
    counted(world, 5, one=30)
    assert "held 5 % for 10 s, 30 of 100 requests" in promote(world, 100)[2]
    left = world.kube.find(CONFIG_MAPS, NAME)["data"]
    assert not [key for key in left if key.startswith("requests.")]


def test_a_roll_back_takes_the_counts_with_the_share(kube: KubeServer) -> None:
    put(kube, 5)
    trial = slots(kube).trial
    count(kube.cluster(), NAME, trial, "one", 7)
    assert roll_back(kube.cluster(), NAME, NEW, "worse", "one")
    assert slots(kube).requests == {}


# What a gateway counts


def state(share: int, changed: str = "then") -> Slots:
    return Slots().holding("a", V1).holding("b", V2).sharing(share, "a test", changed)


def put(kube: KubeServer, share: int, changed: str = "then") -> None:
    data = state(share, changed).data()
    kube.put(CONFIG_MAPS, {"metadata": {"name": NAME, "namespace": "team"}, "data": data})


def slots(kube: KubeServer) -> Slots:
    return Slots.of(kube.find(CONFIG_MAPS, NAME)["data"])


def model(share: int) -> TrafficSplit:
    backends = {each: Backend(f"aligned-{each}", [f"http://10.0.0.{each}/v1"]) for each in "ab"}
    return TrafficSplit("aligned", backends, state(share))


def test_it_counts_what_the_candidate_has_answered_at_its_share() -> None:
    it = model(5)
    for outcome in (
        RequestOutcome(NEW, 200, 0.1),
        RequestOutcome(NEW, 500),
        RequestOutcome(NEW, 400),  # the client's own fault
        RequestOutcome(NEW, 200, math.inf),  # it waits, and may be answered yet
        RequestOutcome(OLD, 200, 0.1),
    ):
        it.seen(outcome)
    assert it.answered == 2
    it.set_slots(state(5))
    assert it.answered == 2, "somebody has written a count"
    it.set_slots(state(25))
    assert it.answered == 0
    it.seen(RequestOutcome(NEW, 200, 0.1))
    it.set_slots(state(25, "later"))
    assert it.answered == 0, "the same share, given again"
    it.set_slots(state(0))
    it.seen(RequestOutcome(NEW, 200, 0.1))
    assert it.answered == 0, "without a share it is not tried"


@asynccontextmanager
async def gateway(
    kube: KubeServer, pod: str = "pod"
) -> AsyncIterator[tuple[TrafficSplit, WatchedSlots]]:
    it = model(0)
    watch = WatchedSlots(kube.cluster(), NAME, it, pod)
    await watch.open()
    try:
        yield it, watch
    finally:
        watch.close()


def answers(it: TrafficSplit, number: int) -> None:
    for _ in range(number):
        it.seen(RequestOutcome(NEW, 200, 0.1))


async def test_a_pod_that_starts_again_neither_loses_nor_doubles_its_count(
    kube: KubeServer,
) -> None:
    put(kube, 5)
    for more in (30, 12):
        async with gateway(kube) as (it, watch):
            answers(it, more)
            await watch.tell()
            await watch.tell()
    assert sorted(slots(kube).requests.values()) == [12, 30]
    assert slots(kube).answered == 42


async def test_it_writes_only_what_is_new(kube: KubeServer) -> None:
    put(kube, 5)
    async with gateway(kube) as (it, watch):
        await watch.tell()
        assert not kube.count("PATCH", "configmaps")
        for answered in (3, 4):
            answers(it, answered - it.answered)
            await watch.tell()
            await watch.tell()
            assert slots(kube).answered == answered
        assert kube.count("PATCH", "configmaps") == 2


async def test_what_comes_too_late_is_not_counted_for_the_next_share(kube: KubeServer) -> None:
    """Of a gateway that has not seen yet that the share has changed."""
    put(kube, 5)
    async with gateway(kube) as (it, watch):
        answers(it, 300)
        before = it.slots
        put(kube, 25)
        await async_until(lambda: it.slots.shares["b"] == 25)
        it.slots, it.answered = before, 300
        await watch.tell()
        assert slots(kube).answered == 0


async def test_a_count_that_cannot_be_written_is_said_once_and_written_later(
    kube: KubeServer, caplog: pytest.LogCaptureFixture
) -> None:
    put(kube, 5)
    async with gateway(kube) as (it, watch):
        answers(it, 3)
        kube.fail(403, "no right", times=2, when=lambda method, what: method == "PATCH")
        for _ in range(3):
            await watch.tell()
    assert caplog.text.count("requests could not be counted") == 1
    assert slots(kube).answered == 3


async def test_a_running_gateway_tells_what_its_clients_got(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "TELL_EVERY_S", 0.01)
    with StreamingEngine("aligned") as a, StreamingEngine("aligned") as b:
        config = on_cluster(kube, a, b, state(50))
        async with gateway_of(config, kube) as (_, url), aiohttp.ClientSession() as http:
            for number in range(12):
                messages = [{"role": "user", "content": f"{number}"}]
                body = {"model": "aligned", "messages": messages, "max_tokens": 8}
                async with http.post(f"{url}/chat/completions", json=body) as reply:
                    assert reply.status == 200
            assert 0 < len(b.requests) < 12
            await async_until(lambda: slots(kube).answered == len(b.requests), "the count")


# The recipe's field


def test_a_recipe_without_it_has_the_fingerprint_that_it_had() -> None:
    sets = ("gate={}", "publish={}", "promote={slots: aligned}")
    part = part_of(load_file(DEMO, sets).recipe)
    assert "hold_requests" not in part.model_dump()["promote"]
    part = part_of(load_file(DEMO, [*sets, "promote.hold_requests=200"]).recipe)
    assert part.model_dump()["promote"]["hold_requests"] == 200
