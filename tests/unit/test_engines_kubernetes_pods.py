"""Pods of leased engines that hang, crash or go away."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Any

import pytest

from moaa.errors import EngineError
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS, EVENTS, PODS
from moaa.recipe.schema import Calls
from tests.support import leasing
from tests.support.engine_server import slow
from tests.support.fake_ensemble import Ensemble, crashed, deployment, pod, ready
from tests.support.kube_server import KubeServer
from tests.support.leased_fleet import fleet
from tests.support.waiting import async_until

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("quick_mirrors")]


@pytest.mark.parametrize("answered", ["at once", "after the next pod's answers"])
async def test_a_pod_that_hangs_is_deleted_and_its_calls_go_to_the_next(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch, answered: str
) -> None:
    answer, delete = threading.Event(), Cluster.delete

    def delete_and_wait(*args: Any, **more: Any) -> None:
        delete(*args, **more)
        assert answer.wait(30)

    monkeypatch.setattr(Cluster, "delete", delete_and_wait)
    if answered == "at once":
        answer.set()
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
            answer.set()
            await async_until(lambda: bench.ledger.events["engine restarts"])
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


async def test_a_pod_that_refuses_every_request_fails_its_model_at_once_and_says_why(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its budget of 600 s was waited for, and the reason was in no message."""
    with Ensemble(kube, "a") as ensemble:
        show = ensemble.show

        def show_refusing(model: str) -> None:
            for server in ensemble.servers.values():
                server.refuse, server.refusal = lambda body: True, "there is no chat template"
            show(model)

        monkeypatch.setattr(ensemble, "show", show_refusing)
        async with fleet(kube.cluster(), "a") as bench:
            with pytest.raises(EngineError, match=r"ready, but model 'a'.*no chat template"):
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
            assert await bench.ask("a")
            assert bench.ledger.events["engine restarts"] == 1


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


async def test_watches_that_break_are_opened_again(kube: KubeServer) -> None:
    with Ensemble(kube, "a") as ensemble:
        async with fleet(kube.cluster(), "a") as bench:
            await bench.fleet.up(["a"])
            kube.forget_history()
            ensemble.start("a")
            await async_until(lambda: len(bench.client.pool("a").endpoints) == 2)
            assert bench.ledger.events["engine restarts"] == 0
