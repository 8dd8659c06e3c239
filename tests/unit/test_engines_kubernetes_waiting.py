"""What is said while a leased engine does not come up, and when it is given up."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from moaa.errors import ClusterError, EngineError
from moaa.kubernetes.kinds import DEPLOYMENTS, EVENTS, PODS
from moaa.kubernetes.leases import Observer
from moaa.kubernetes.reaper import Reaper
from tests.support.fake_ensemble import Ensemble, deployment, pod, unschedulable
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import Clock
from tests.support.leased_fleet import fleet
from tests.support.waiting import async_until

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("quick_mirrors")]


GPUS = (
    "0/6 nodes are available: 6 Insufficient nvidia.com/gpu. preemption: 0/6 nodes are available."
)


async def test_an_api_server_that_is_away_costs_nothing_but_a_line(kube: KubeServer) -> None:
    """And when it is back, the reaper comes first: the lease has its full period again."""
    with Ensemble(kube, "a") as ensemble:
        reaper = Reaper(kube.cluster(), Observer(clock := Clock()))
        async with fleet(kube.cluster(), "a") as bench:
            await bench.fleet.up(["a"])
            list(reaper.look())
            kube.fail(503, "rolling upgrade", times=10_000)
            kube.cut_watches()
            await async_until(lambda: bench.ledger.events["lease renewals missed"] > 0)
            assert "the lease of a could not be renewed" in bench.note
            await bench.ask("a")
            renewed = kube.count("PATCH", "leases/")
            kube.heal()
            clock.now += 150
            assert list(reaper.look()) == []
            await async_until(lambda: kube.count("PATCH", "leases/") > renewed + 1)
            clock.now += 15
            assert list(reaper.look()) == []
            kube.fail(503, "rolling upgrade", times=10_000)
        assert bench.ledger.events["leases left to run out"] == 1
        assert "lease of a was not given back and runs out in 120 s" in bench.note
        assert ensemble.replicas("a") == 1  # until the lease runs out, and the reaper comes


async def test_a_login_that_is_being_replaced_costs_nothing_but_a_line(kube: KubeServer) -> None:
    with Ensemble(kube, "a"):
        async with fleet(kube.cluster(), "a") as bench:
            await bench.fleet.up(["a"])
            kube.fail(401, "Unauthorized", times=10_000)
            await async_until(lambda: bench.ledger.events["lease renewals missed"] > 0)
            kube.heal()
            renewed = kube.count("PATCH", "leases/")
            await async_until(lambda: kube.count("PATCH", "leases/") > renewed + 1)
            await bench.ask("a")
            assert bench.ledger.events["engines given up"] == 0


async def test_no_deployment(kube: KubeServer) -> None:
    async with fleet(kube.cluster(), "Qwen2.5") as bench:
        assert bench.fleet.absent == {"Qwen2.5"}
        with pytest.raises(
            EngineError,
            match=r"in namespace 'team' serves 'Qwen2.5' \(label moaa.dev/model=qwen2-5\)",
        ) as caught:
            await bench.fleet.up(["Qwen2.5"])
    assert (
        "moaa recipe helm-values RECIPE.yaml > values.yaml\n  helm upgrade --install ensemble"
        in str(caught.value)
    )
    assert "--namespace team --values values.yaml" in str(caught.value)


async def test_two_deployments_for_one_model(kube: KubeServer) -> None:
    kube.put(DEPLOYMENTS, deployment("one-a", "a"))
    kube.put(DEPLOYMENTS, deployment("two-a", "a"))
    async with fleet(kube.cluster(), "a") as bench:
        with pytest.raises(
            EngineError,
            match=r"'a' is served by 2 Deployments in namespace 'team' \(one-a, two-a\)",
        ):
            await bench.fleet.up(["a"])


async def test_no_rights(kube: KubeServer) -> None:
    kube.fail(
        403,
        'endpointslices.discovery.k8s.io is forbidden: User "system:serviceaccount:team:default" '
        'cannot list resource "x"',
        when=lambda method, what: what == "endpointslices",
    )
    with pytest.raises(
        ClusterError,
        match=r"'system:serviceaccount:team:default' may not list endpointslices.discovery.k8s.io",
    ):
        async with fleet(kube.cluster(), "a"):
            raise AssertionError


async def test_what_it_waits_for_is_said(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        ensemble.status = unschedulable(GPUS)
        async with fleet(kube.cluster(), "a") as bench:
            up = asyncio.create_task(bench.fleet.up(["a"]))
            await async_until(
                lambda: bench.note == f"waiting for a: cannot be scheduled: {GPUS}",
                lambda: bench.note,
            )
            (name,) = ensemble.pods("a")
            creating = {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "True"}],
            }
            event = {
                "metadata": {"name": "e"},
                "involvedObject": {"name": name},
                "reason": "Pulling",
            }
            kube.put(EVENTS, event | {"message": 'Pulling image "vllm:1"'})
            kube.put(PODS, pod(name, "a", creating))
            await async_until(
                lambda: (
                    bench.note
                    == 'waiting for a: its containers are created: Pulling image "vllm:1"'
                ),
                lambda: bench.note,
            )
            kube.remove(PODS, name)
            ensemble.start("a")
            await up
            assert bench.note == ""


async def test_the_budget_ends_with_the_pods_own_reason(kube: KubeServer) -> None:
    with Ensemble(kube, "a", "b") as ensemble:
        ensemble.status = unschedulable(GPUS)
        async with fleet(kube.cluster(), "a", "b", start_timeout_s=2) as bench:
            begun = time.monotonic()
            with pytest.raises(EngineError) as caught:
                await bench.fleet.up(["a", "b"])
            assert time.monotonic() - begun < 20
            text = str(caught.value)
            assert re.match(
                r"model '[ab]' had no pod that answers for 2 s "
                r"\(runtime.engines.start_timeout_s\)\. ",
                text,
            )
            assert re.search(
                rf"Deployment moaa-[ab] in namespace 'team': cannot be scheduled: {GPUS}", text
            )
            assert "Free the pool, or set runtime.engines.schedule to 'by-turns'" in text
            assert (
                ensemble.replicas("a") == ensemble.replicas("b") == 0
            )  # given back before the error is raised


async def test_without_a_budget_in_the_recipe_the_deployments_own_holds(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        ensemble.status = unschedulable(GPUS)
        found = kube.find(DEPLOYMENTS, "moaa-a")
        kube.put(DEPLOYMENTS, {**found, "spec": {**found["spec"], "progressDeadlineSeconds": 1}})
        async with fleet(kube.cluster(), "a") as bench:
            with pytest.raises(
                EngineError,
                match=r"had no pod that answers for 1 s \(progressDeadlineSeconds of its "
                r"Deployment",
            ):
                await bench.fleet.up(["a"])


async def test_a_server_that_knows_the_model_by_another_name(kube: KubeServer) -> None:
    kube.put(DEPLOYMENTS, deployment("moaa-a", "A"))
    with Ensemble(kube, "a") as ensemble:  # serves 'a', asked is 'A'
        async with fleet(kube.cluster(), "A") as bench:
            with pytest.raises(
                EngineError, match=r"Deployment moaa-a is ready, but .*The model `A` does not exist"
            ):
                await bench.fleet.up(["A"])
        assert ensemble.replicas("a") == 0
