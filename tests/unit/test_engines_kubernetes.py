"""Engines that are leased from a cluster: up while a run needs them, shared, and given back."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from moaa.kubernetes import names, replicas
from moaa.kubernetes.kinds import DEPLOYMENTS
from tests.support.fake_ensemble import Ensemble
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import hold
from tests.support.leased_fleet import HURRY, fleet
from tests.support.waiting import async_until

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("quick_mirrors")]


async def test_up_answers_and_down_scales_down(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(names.RUN_ENV, "run-1")
    monkeypatch.setenv(names.STAGE_ENV, "generate")
    with Ensemble(kube, "Big.Model", "b", "idle") as ensemble:
        async with fleet(kube.cluster(), "Big.Model", "b", "idle") as bench:
            assert bench.fleet.capacity is None
            assert bench.fleet.absent == set()
            await bench.fleet.up(["Big.Model", "b"])
            assert await asyncio.gather(bench.ask("Big.Model"), bench.ask("b"))
            (holder,) = ensemble.holders("b")
            assert re.fullmatch("run-1/generate/[0-9a-f]{8}", holder)
            assert (ensemble.replicas("b"), ensemble.replicas("idle")) == (1, 0)
            assert bench.note == ""
            await bench.fleet.down(["b"])
            assert (ensemble.replicas("b"), ensemble.replicas("Big.Model")) == (0, 1)
            assert bench.client.pool("b").endpoints == []
            await bench.fleet.up(["b"])  # again, as by turns
            await bench.ask("b")
        assert (ensemble.replicas("b"), ensemble.replicas("Big.Model")) == (0, 0)
        assert ensemble.holders("b") == []
        assert bench.ledger.events == {}
        assert bench.ledger.seconds["engines"] > 0


async def test_so_many_replicas_as_the_chart_says(kube: KubeServer) -> None:
    with Ensemble(kube, "a", **{"replicas": "3", "idle-replicas": "1"}) as ensemble:
        async with fleet(kube.cluster(), "a") as bench:
            await bench.fleet.up(["a"])
            await async_until(lambda: len(bench.client.pool("a").endpoints) == 3)
            await asyncio.gather(*(bench.ask("a", f"question {n}") for n in range(30)))
            assert all(server.count > 1 for server in ensemble.servers.values())
        assert ensemble.replicas("a") == 1


async def test_a_leased_reward_model_is_ready_when_it_has_given_a_score(kube: KubeServer) -> None:
    with Ensemble(kube, "rm") as ensemble:
        async with fleet(kube.cluster(), "rm", task="reward") as bench:
            await bench.fleet.up(["rm"])
            assert float(await bench.ask("rm", "How good is this?"))
            asked = [path for each in ensemble.servers.values() for path, _ in each.pooled]
            assert asked == ["/classify", "/classify"]
            assert all(each.count == 0 for each in ensemble.servers.values())
        assert ensemble.replicas("rm") == 0


async def test_two_runs_share_and_the_second_to_leave_scales_down(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        async with fleet(kube.cluster(), "a") as one:
            async with fleet(kube.cluster(), "a") as other:
                await asyncio.gather(one.fleet.up(["a"]), other.fleet.up(["a"]))
                assert len(ensemble.holders("a")) == 2
                assert len(ensemble.pods("a")) == 1
                await one.fleet.down(["a"])
                assert len(ensemble.holders("a")) == 1
                assert ensemble.replicas("a") == 1
                await other.ask("a")
            assert ensemble.replicas("a") == 0


async def test_what_a_crashed_run_left_keeps_the_engine_up_until_the_reaper_comes(
    kube: KubeServer,
) -> None:
    """Only who watches for a whole period knows that its holder is dead."""
    with Ensemble(kube, "a") as ensemble:
        hold(kube, DEPLOYMENTS, "moaa-a", "crashed/x/1")
        async with fleet(kube.cluster(), "a") as bench:
            await bench.fleet.up(["a"])
        assert ensemble.holders("a") == ["crashed/x/1"]
        assert ensemble.replicas("a") == 1


async def test_leases_are_renewed_and_an_engine_scaled_down_by_others_comes_back(
    kube: KubeServer,
) -> None:
    with Ensemble(kube, "a") as ensemble:
        async with fleet(kube.cluster(), "a") as bench:
            await bench.fleet.up(["a"])
            renewed = kube.count("PATCH", "leases/")
            await async_until(lambda: kube.count("PATCH", "leases/") > renewed)
            ensemble.scale_by_hand("a", 0)
            # The next renewal brings it back, maybe before its pod is gone.
            await async_until(lambda: ensemble.replicas("a") == len(ensemble.holders("a")) == 1)
            assert await bench.ask("a")
            assert bench.ledger.events["engine pods lost"] <= 1
        assert (ensemble.replicas("a"), ensemble.holders("a")) == (0, [])


async def test_giving_back_is_few_requests_for_each_deployment(kube: KubeServer) -> None:
    """A terminated pod has a fifth of a second. The lease goes first: the rest is the reaper's, if
    need be."""
    rarely = replace(HURRY, renew_every_s=60.0)
    with Ensemble(kube, "a") as ensemble:
        async with fleet(kube.cluster(), "a", timing=rarely) as bench:

            def mirrored(name: str) -> bool:
                """Whether the mirror has seen what we wrote."""
                seen = bench.fleet.view.deployment(name)
                return bool(
                    seen
                    and seen["metadata"]["resourceVersion"]
                    == kube.find(DEPLOYMENTS, name)["metadata"]["resourceVersion"]
                )

            await bench.fleet.up(["a"])
            await async_until(lambda: mirrored("moaa-a"))
            kube.requests.clear()
            await bench.fleet.down(["a"])
            assert [
                (method, what.partition("-deployment-")[0]) for method, what, _ in kube.requests
            ] == [
                ("DELETE", "leases/moaa"),
                ("GET", "leases"),
                ("PATCH", "deployments/moaa-a/scale"),
                ("GET", "leases"),
            ]
        assert ensemble.replicas("a") == 0


async def test_an_engine_that_is_leased_while_it_is_given_back_is_up_in_the_end(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ensemble(kube, "a") as ensemble:
        async with fleet(kube.cluster(), "a") as bench:
            await bench.fleet.up(["a"])
            scale = replicas.scale

            def and_leased_by_another(*given: Any, **how: Any) -> tuple[int, int]:
                if not how["leased"]:
                    hold(kube, DEPLOYMENTS, "moaa-a", "other/sft/1")
                return scale(*given, **how)

            monkeypatch.setattr(replicas, "scale", and_leased_by_another)
            await bench.fleet.down(["a"])
        assert (ensemble.replicas("a"), ensemble.holders("a")) == (1, ["other/sft/1"])


async def test_leaving_while_it_is_being_leased_leaves_no_lease(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        kube.fail(
            503, times=2, when=lambda method, what: method == "PATCH"
        )  # so that it takes a while
        async with fleet(kube.cluster(), "a") as bench:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bench.fleet.up(["a"]), 0.05)
        assert ensemble.holders("a") == []
        assert ensemble.replicas("a") == 0


async def test_by_turns_one_is_up(kube: KubeServer) -> None:
    async with fleet(kube.cluster(), "a", "b", schedule="by-turns") as bench:
        assert bench.fleet.capacity == 1
    async with fleet(kube.cluster(), "a", "b", schedule="together") as bench:
        assert bench.fleet.capacity is None
