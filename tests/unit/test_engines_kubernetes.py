"""Leased Deployments: up, shared, lost, given back; on an API server of ours, with engines of ours
as pods."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from moaa.engines.kubernetes import Timing
from moaa.errors import ClusterError, EngineError
from moaa.kubernetes import mirror, names, replicas
from moaa.kubernetes.kinds import DEPLOYMENTS, EVENTS, PODS
from moaa.kubernetes.leases import Observer
from moaa.kubernetes.reaper import Reaper
from moaa.recipe.schema import Calls
from tests.support import leasing
from tests.support.engine_server import slow
from tests.support.fake_ensemble import Ensemble, crashed, deployment, pod, ready, unschedulable
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import Clock, hold
from tests.support.waiting import async_until

pytestmark = pytest.mark.timeout(60)
HURRY = Timing(look_every_s=0.05, events_every_s=0.05, renew_every_s=0.2, release_patience_s=0.5)
fleet = partial(leasing.fleet, timing=HURRY)
GPUS = (
    "0/6 nodes are available: 6 Insufficient nvidia.com/gpu. preemption: 0/6 nodes are available."
)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "RETRY_S", 0.02)


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


async def test_a_pod_that_hangs_is_deleted_and_its_calls_go_to_the_next(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        calls = Calls(timeout_s=0.5, retries=0)
        async with fleet(kube.cluster(), "a", calls=calls) as bench:
            await bench.fleet.up(["a"])
            (hung,) = ensemble.pods("a")
            ensemble.servers[hung].fail(slow(3600), times=1000)
            asking = asyncio.gather(*(bench.ask("a", f"question {n}") for n in range(8)))
            await async_until(lambda: kube.count("DELETE", f"pods/{hung}"))
            server = ensemble.servers.pop(hung)
            ensemble.show("a")
            ensemble.start("a")  # as the Deployment does
            assert all(await asking)
            server.__exit__()
            assert bench.ledger.events == {
                "engine pods that answered nothing any more": 1,
                "engine pods lost": 1,
                "engine restarts": 1,
            }


async def test_a_pod_that_hangs_and_may_not_be_deleted_is_left_to_its_liveness_probe(
    kube: KubeServer,
) -> None:
    kube.fail(403, "no", times=1000, when=lambda method, what: method == "DELETE")
    with Ensemble(kube, "a") as ensemble:
        calls = Calls(timeout_s=0.5, retries=0)
        async with fleet(kube.cluster(), "a", calls=calls) as bench:
            await bench.fleet.up(["a"])
            (hung,) = ensemble.pods("a")
            ensemble.servers[hung].fail(slow(3600), times=1000)
            asking = asyncio.create_task(bench.ask("a"))
            event = "engine pods that hung and could not be deleted"
            await async_until(lambda: bench.ledger.events[event])
            ensemble.servers[hung].heal()  # the container was started again
            assert await asking


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


async def test_a_crash_loop_is_bounded_and_shows_its_log(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        ensemble.status = crashed(restarts=0)
        async with fleet(kube.cluster(), "a", max_restarts=2) as bench:
            up = asyncio.create_task(bench.fleet.up(["a"]))
            await async_until(lambda: bool(ensemble.pods("a")))
            (name,) = ensemble.pods("a")
            kube.logs[name, "vllm", True] = (
                "\x1b[31mRuntimeError: made of cheese\x1b[0m\n" + "frame\n" * 30
            )
            kube.put(
                EVENTS,
                {
                    "metadata": {"name": "e"},
                    "involvedObject": {"name": name},
                    "reason": "BackOff",
                    "message": "back-off",
                },
            )
            for restarts in (1, 2):
                kube.put(PODS, pod(name, "a", crashed(restarts)) | {})
                await async_until(partial(restarted, bench, restarts))
                assert not up.done()
            kube.put(PODS, pod(name, "a", crashed(3, exit_code=137, reason="OOMKilled")))
            with pytest.raises(EngineError) as caught:
                await up
        text = str(caught.value)
        assert "model 'a' was started again 3 times (runtime.engines.max_restarts: 2)" in text
        assert (
            "container 'vllm' CrashLoopBackOff: the last was ended: OOMKilled. Raise the model's "
            "memory" in text
        )
        assert (
            f"the end of the log of {name} (vllm):\n    RuntimeError: made of cheese\n    …\n    "
            "frame\n" in text
        )
        assert f"events of {name}:\n    BackOff: back-off" in text
        assert bench.ledger.events["engine restarts"] == 3


def restarted(bench: leasing.Bench, times: int) -> bool:
    return bench.ledger.events["engine restarts"] == times


async def test_restarts_of_before_do_not_count(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        kube.put(DEPLOYMENTS, deployment("moaa-a", "a", replicas=1))
        name = ensemble.start("a", restarts=7)
        async with fleet(kube.cluster(), "a", max_restarts=1) as bench:
            await bench.fleet.up(["a"])
            kube.put(PODS, {**kube.find(PODS, name), "status": ready(8)})
            await async_until(lambda: bench.ledger.events["engine restarts"] == 1)
            await bench.ask("a")


async def test_pods_that_die_lose_no_call(kube: KubeServer) -> None:
    with Ensemble(kube, "a", replicas="2") as ensemble:
        # However slow this machine is: no server is taken for one that hangs.
        async with fleet(kube.cluster(), "a", calls=Calls(timeout_s=600)) as bench:
            await bench.fleet.up(["a"])
            await async_until(lambda: len(bench.client.pool("a").endpoints) == 2)
            servers = list(ensemble.servers.values())
            for server in servers:
                server.delay_s = 3600  # they die with all their calls
            calls = [asyncio.create_task(bench.ask("a", f"question {n}")) for n in range(50)]
            await async_until(lambda: all(server.at_once > 1 for server in servers))
            first, second = ensemble.pods("a")
            await asyncio.to_thread(
                ensemble.kill, first, abruptly=True
            )  # its calls go to the other
            await async_until(lambda: len(bench.client.pool("a").endpoints) == 1)
            await asyncio.to_thread(
                ensemble.kill, second, abruptly=True
            )  # and those wait for the next pod
            await async_until(
                lambda: bench.note.startswith("waiting for a: no pod yet"), lambda: bench.note
            )
            await asyncio.to_thread(ensemble.start, "a")
            assert len(set(await asyncio.gather(*calls))) == 50
            assert bench.ledger.events["engine pods lost"] == 2
            await async_until(lambda: bench.note == "", lambda: bench.note)


async def test_pods_that_stay_away_fail_the_calls_that_wait(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        async with fleet(kube.cluster(), "a", start_timeout_s=1) as bench:
            await bench.fleet.up(["a"])
            await asyncio.sleep(1.1)  # the budget counts from the loss, not from the start
            ensemble.kill(ensemble.pods("a")[0])
            begun = time.monotonic()
            with pytest.raises(EngineError, match=r"had no pod that answers for 1 s.*: no pod yet"):
                await bench.ask("a")
            assert time.monotonic() - begun > 0.8


async def test_a_deployment_that_is_deleted_is_an_error(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        async with fleet(kube.cluster(), "a") as bench:
            await bench.fleet.up(["a"])
            kube.remove(DEPLOYMENTS, "moaa-a")
            ensemble.kill(ensemble.pods("a")[0])
            with pytest.raises(
                EngineError,
                match=r"lease of model 'a' could not be renewed: there is no Deployment 'moaa-a'",
            ):
                await bench.ask("a")


async def test_a_server_that_knows_the_model_by_another_name(kube: KubeServer) -> None:
    kube.put(DEPLOYMENTS, deployment("moaa-a", "A"))
    with Ensemble(kube, "a") as ensemble:  # serves 'a', asked is 'A'
        async with fleet(kube.cluster(), "A") as bench:
            with pytest.raises(
                EngineError, match=r"Deployment moaa-a is ready, but .*The model `A` does not exist"
            ):
                await bench.fleet.up(["A"])
        assert ensemble.replicas("a") == 0


async def test_by_turns_one_is_up(kube: KubeServer) -> None:
    async with fleet(kube.cluster(), "a", "b", schedule="by-turns") as bench:
        assert bench.fleet.capacity == 1
    async with fleet(kube.cluster(), "a", "b", schedule="together") as bench:
        assert bench.fleet.capacity is None


async def test_watches_that_break_are_opened_again(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        async with fleet(kube.cluster(), "a") as bench:
            await bench.fleet.up(["a"])
            kube.forget_history()
            ensemble.start("a")
            await async_until(lambda: len(bench.client.pool("a").endpoints) == 2)
