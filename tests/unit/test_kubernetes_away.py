"""The API server is away for many minutes: a stage waits for it, a command does not."""

from __future__ import annotations

import asyncio
import logging
import time
from types import SimpleNamespace

import pytest

from moaa.kubernetes import transport
from moaa.kubernetes.errors import Unreachable
from moaa.kubernetes.kinds import LEASES, PODS
from moaa.kubernetes.transport import OUTAGE_S
from tests.support.fake_ensemble import Ensemble
from tests.support.kube_server import KubeServer
from tests.support.launched import COMPLETE, Running, connected, set_status, there
from tests.support.leased_fleet import fleet
from tests.support.waiting import async_until, until

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("quick_mirrors")]

TEN_MINUTES = 130
"""So many attempts, with the pauses between them."""


class Clock:
    """Of the requests to Kubernetes: it jumps over their pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        time.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    fake = SimpleNamespace(monotonic=made.monotonic, sleep=made.sleep)
    monkeypatch.setattr(transport, "time", fake)
    return made


def test_a_stage_waits_for_minutes_and_says_so_once(
    kube: KubeServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    kube.fail(503, "etcd is away", times=TEN_MINUTES)
    with caplog.at_level(logging.WARNING, "moaa"):
        assert kube.cluster(patience_s=OUTAGE_S).list(PODS) == []
    assert 300 < clock.now < OUTAGE_S
    away, back = caplog.messages
    assert "HTTP 503: etcd is away. It is asked again, for up to 20 min" in away
    assert back.endswith("answers again")


def test_a_command_gives_up_after_a_minute(kube: KubeServer, clock: Clock) -> None:
    kube.fail(503, "etcd is away", times=TEN_MINUTES)
    with pytest.raises(Unreachable, match="given up after 60 s"):
        kube.cluster().list(PODS)
    assert clock.now < 61


@pytest.mark.parametrize("asked", ["leases", "trainjobs", "pods"])
def test_a_training_begins_while_the_api_server_is_away(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch, clock: Clock, asked: str
) -> None:
    """Whichever request meets the outage: the lease, the training, the lists."""
    connected(kube, monkeypatch)
    kube.fail(503, times=TEN_MINUTES, when=lambda method, what: what.startswith(asked))
    run = Running()
    until(lambda: there(kube))
    set_status(kube, COMPLETE)
    assert run.end() is None
    assert clock.now > 300


async def test_a_fleet_opens_and_takes_its_leases_while_the_api_server_is_away(
    kube: KubeServer,
) -> None:
    with Ensemble(kube, "a") as ensemble:
        kube.fail(503, times=10_000)
        opening = fleet(kube.cluster(patience_s=0.01), "a")
        entered = asyncio.create_task(opening.__aenter__())
        await async_until(lambda: kube.count("GET") > 6)  # three lists, each more than once
        kube.heal()
        bench = await entered
        kube.fail(503, times=10_000, when=lambda method, what: "leases" in what)
        up = asyncio.create_task(bench.fleet.up(["a"]))
        await async_until(lambda: "the lease of a cannot be taken yet" in bench.note)
        assert not ensemble.replicas("a")
        kube.heal()
        await up
        assert ensemble.replicas("a") == 1
        await opening.__aexit__(None, None, None)


async def test_a_stage_that_is_told_to_end_does_not_wait_for_the_api_server(
    kube: KubeServer,
) -> None:
    with Ensemble(kube, "a"):
        async with fleet(kube.cluster(), "a") as bench:
            kube.fail(503, times=10_000)
            up = asyncio.create_task(bench.fleet.up(["a"]))
            await async_until(lambda: "the lease of a cannot be taken yet" in bench.note)
            up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await up
            assert bench.ledger.events["leases left to run out"] == 1
            kube.heal()
    assert not [name for plural, name in kube.objects if plural == LEASES.plural]
