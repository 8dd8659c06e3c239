"""Replicas found on the cluster, models woken and put to sleep, by two gateways at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from moaa.gateway.backend import Backend
from moaa.gateway.discovery import Discovery
from moaa.gateway.waker import Waker, WakeTimes, asleep
from moaa.gateway.wire import ApiError
from moaa.kubernetes.kinds import DEPLOYMENTS, LEASES, SLICES
from moaa.kubernetes.names import IDLE_REPLICAS, REPLICAS
from tests.support.fake_ensemble import deployment
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import Clock, hold, holders
from tests.support.waiting import async_until

NAME = "ens-smol"


def slices(*addresses: str, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{NAME}-x1", "labels": {"kubernetes.io/service-name": NAME}},
        "ports": [{"name": "http", "port": 8000}],
        "endpoints": [{"addresses": [each], "conditions": {"ready": ready}} for each in addresses],
    }


def sleeping(kube: KubeServer) -> None:
    numbers = {REPLICAS: "2", IDLE_REPLICAS: "0"}
    kube.put(DEPLOYMENTS, deployment(NAME, "smol", annotations=numbers))


class Replica:
    """What one replica of the gateway has."""

    def __init__(self, kube: KubeServer, clock: Clock) -> None:
        self.backend = Backend("smol")
        self.discovery = Discovery(kube.cluster(), {NAME: self.backend})
        self.waker = Waker(
            kube.cluster(),
            {NAME: self.backend},
            self.discovery.deployment,
            "gateway/ens",
            WakeTimes(idle_s=300, hold_s=100),
            clock,
        )

    async def tick(self) -> None:
        """One look, and all that follows from it."""
        self.waker.look()
        await self.waker.close()


@asynccontextmanager
async def gateways(
    kube: KubeServer, count: int = 1, clock: Clock | None = None
) -> AsyncIterator[list[Replica]]:
    made = [Replica(kube, clock or Clock()) for _ in range(count)]
    for each in made:
        await each.discovery.open()
    try:
        yield made
    finally:
        for each in made:
            each.discovery.close()


def size(kube: KubeServer) -> int:
    return int(kube.find(DEPLOYMENTS, NAME)["spec"]["replicas"])


async def test_replicas_come_and_go_with_the_pods(kube: KubeServer) -> None:
    sleeping(kube)
    async with gateways(kube) as [gateway]:
        backend = gateway.backend
        assert backend.asleep
        kube.put(SLICES, slices("10.0.0.1", "10.0.0.2"))
        await async_until(lambda: len(backend.replicas) == 2, "two replicas")
        assert set(backend.replicas) == {"http://10.0.0.1:8000/v1", "http://10.0.0.2:8000/v1"}
        assert backend.state == "ready"
        kube.put(SLICES, slices("10.0.0.2"))
        await async_until(lambda: len(backend.replicas) == 1, "one replica")
        kube.put(SLICES, slices("10.0.0.2", ready=False))
        await async_until(lambda: backend.state == "asleep", "sleep")


async def test_one_that_is_always_on_is_down_not_asleep(kube: KubeServer) -> None:
    kube.put(DEPLOYMENTS, deployment(NAME, "smol", annotations={IDLE_REPLICAS: "1"}))
    async with gateways(kube) as [gateway]:
        assert gateway.backend.state == "down"


async def test_two_gateways_wake_a_model_once(kube: KubeServer) -> None:
    sleeping(kube)
    async with gateways(kube, 2) as both:
        for each in both * 3:
            each.waker.wake(NAME)
        await asyncio.gather(*(each.waker.close() for each in both))
    assert holders(kube, DEPLOYMENTS, NAME) == [f"gateway/ens/{NAME}"]
    assert size(kube) == 2
    assert kube.count("PATCH", f"deployments/{NAME}/scale") <= 2
    versions = [body for method, what, body in kube.requests if what.endswith("/scale")]
    assert all(body and "resourceVersion" in body["metadata"] for body in versions)


async def test_a_held_request_is_told_how_long_and_ends_when_the_model_is_up(
    kube: KubeServer,
) -> None:
    sleeping(kube)
    clock = Clock()
    async with gateways(kube, clock=clock) as [gateway]:
        said = []
        async for waking in gateway.waker.until_up(NAME):
            said.append(str(waking))
            clock.now += 7
            if len(said) == 3:
                kube.put(SLICES, slices("10.0.0.1"))
        assert said[0] == "waking smol, 0 s of at most 600"
        assert said[1] == "waking smol, 7 s of at most 600"
        await gateway.tick()
        kube.put(SLICES, slices())
        await async_until(lambda: gateway.backend.state == "asleep", "sleep")
        again = gateway.waker.wake(NAME)
        assert "of about" in str(again)
        await gateway.waker.close()


async def test_a_request_that_cannot_wait_is_told_when_to_come_again(kube: KubeServer) -> None:
    sleeping(kube)
    async with gateways(kube) as [gateway]:
        error = asleep(gateway.waker.wake(NAME))
        await gateway.waker.close()
    assert (error.status, error.code) == (503, "model_asleep")
    headers = error.all_headers()
    assert headers["Retry-After"] == "120"
    assert headers["x-should-retry"] == "true"


async def test_a_model_that_does_not_start_in_time_is_an_error(kube: KubeServer) -> None:
    sleeping(kube)
    clock = Clock()
    async with gateways(kube, clock=clock) as [gateway]:
        waits = gateway.waker.until_up(NAME)
        await anext(waits)
        clock.now += 101
        with pytest.raises(ApiError, match="did not start within 100 s"):
            await anext(waits)
        await gateway.waker.close()


async def test_a_right_that_is_missing_is_an_error_at_once(kube: KubeServer) -> None:
    sleeping(kube)
    async with gateways(kube) as [gateway]:
        refused = 'User "gateway" cannot patch resource "leases"'
        kube.fail(403, refused, times=9, when=lambda method, what: method == "PATCH")
        gateway.waker.wake(NAME)
        await gateway.waker.close()
        with pytest.raises(ApiError, match="could not be woken"):
            gateway.waker.wake(NAME)


async def idle(gateways: list[Replica], clock: Clock, seconds: float, busy: set[int]) -> None:
    """Let time pass; the busy ones get requests."""
    for _ in range(int(seconds / 10)):
        clock.now += 10
        for number, each in enumerate(gateways):
            if number in busy:
                each.waker.used(NAME)
            await each.tick()


async def test_an_idle_model_sleeps_once_no_gateway_needs_it(kube: KubeServer) -> None:
    sleeping(kube)
    clock = Clock()
    async with gateways(kube, 2, clock) as both:
        for each in both:
            each.waker.used(NAME)
            await each.tick()
        assert size(kube) == 2
        await idle(both, clock, 600, busy={1})
        assert size(kube) == 2, "the other gateway still needs it"
        await idle(both, clock, 500, busy=set())
        assert size(kube) == 0
        assert not holders(kube, DEPLOYMENTS, NAME)


async def test_a_model_that_a_pipeline_leases_stays_up(kube: KubeServer) -> None:
    sleeping(kube)
    clock = Clock()
    async with gateways(kube, clock=clock) as [gateway]:
        gateway.waker.used(NAME)
        await gateway.tick()
        hold(kube, DEPLOYMENTS, NAME, "run-1/generate/aa")
        await idle([gateway], clock, 600, busy=set())
    assert size(kube) == 2
    assert holders(kube, DEPLOYMENTS, NAME) == ["run-1/generate/aa"]


async def test_a_new_process_takes_over_the_lease_of_a_killed_one(kube: KubeServer) -> None:
    sleeping(kube)
    hold(kube, DEPLOYMENTS, NAME, f"gateway/ens/{NAME}")
    clock = Clock()
    async with gateways(kube, clock=clock) as [gateway]:
        await gateway.waker.open()
        await idle([gateway], clock, 200, busy=set())
        assert holders(kube, DEPLOYMENTS, NAME)
        await idle([gateway], clock, 300, busy=set())
    assert not [key for key in kube.objects if key[0] == LEASES.plural]


async def test_what_is_kept_up_needs_no_request(kube: KubeServer) -> None:
    sleeping(kube)
    clock = Clock()
    async with gateways(kube, clock=clock) as [gateway]:
        gateway.waker.kept = {NAME}
        await idle([gateway], clock, 1000, busy=set())
        assert size(kube) == 2
        gateway.waker.kept = ()
        await idle([gateway], clock, 250, busy=set())
        assert size(kube) == 2, "warm for a while"
        await idle([gateway], clock, 250, busy=set())
        assert size(kube) == 0
