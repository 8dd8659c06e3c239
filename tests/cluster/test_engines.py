"""Engines leased from a real cluster."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moaa.kubernetes import leases, names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import Kind
from moaa.recipe.schema import Calls
from tests.charts.render import SERVING
from tests.cluster.charts import fake_engine, install, serving
from tests.cluster.leased import (
    engine,
    holders,
    kubeconfig_of,
    pods,
    replicas,
    with_engines,
)
from tests.cluster.tools import Namespace, needs_cluster, run, until
from tests.support.leasing import fleet
from tests.support.paths import ROOT
from tests.support.waiting import async_until

pytestmark = [needs_cluster, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with with_engines("engines-leases") as made:
        yield made


async def at(function: object, *arguments: object) -> None:
    await asyncio.to_thread(function, *arguments)  # type: ignore[arg-type]


async def test_a_lease_scales_up_answers_and_scales_down(ns: Namespace, cluster: Cluster) -> None:
    engine(ns, "Two.Of", replicas=2)
    async with fleet(cluster, "Two.Of") as bench:
        assert replicas(ns, "Two.Of") == 0
        begun = time.monotonic()
        await bench.fleet.up(["Two.Of"])
        print(f"up and answering after {time.monotonic() - begun:.1f} s")
        assert await bench.ask("Two.Of") == "Hello"
        assert replicas(ns, "Two.Of") == 2
        await async_until(lambda: len(bench.client.pool("Two.Of").endpoints) == 2, timeout_s=30)
        assert len(holders(ns, "moaa-two-of")) == 1
    assert replicas(ns, "Two.Of") == 0
    assert holders(ns, "moaa-two-of") == []
    until(lambda: not pods(ns, "Two.Of"), "the end of the pods", 30)
    assert bench.ledger.events == {}


async def test_the_chart_s_own_deployments(
    ns: Namespace, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by label, leased, probed and drained as the chart defines them; the served name is the
    recipe's."""
    fake_engine(ns)
    values = serving(
        {"name": "big-1b", "servedName": "Big-1B", "leasedReplicas": 1},
        networkPolicy={"enabled": False},
    )
    install(ns, "ens", SERVING, values)
    key = base64.b64decode(ns.get("secret", "moaa-engines")["data"][names.ENGINES_KEY])
    monkeypatch.setenv(names.ENGINES_KEY, key.decode())
    try:
        async with fleet(cluster, "Big-1B") as bench:
            await bench.fleet.up(["Big-1B"])
            assert await bench.ask("Big-1B") == "Hello"
            assert ns.get("deployment", "ens-big-1b")["spec"]["replicas"] == 1
        assert ns.get("deployment", "ens-big-1b")["spec"]["replicas"] == 0
    finally:
        ns.helm("uninstall", "ens", "--wait")


async def test_two_fleets_share_and_the_second_to_leave_scales_down(
    ns: Namespace, cluster: Cluster
) -> None:
    engine(ns, "shared")
    async with fleet(cluster, "shared") as other:
        async with fleet(cluster, "shared") as one:
            await asyncio.gather(one.fleet.up(["shared"]), other.fleet.up(["shared"]))
            assert len(holders(ns, "moaa-shared")) == 2
            assert len(pods(ns, "shared")) == 1
            await one.ask("shared")
        assert (replicas(ns, "shared"), len(holders(ns, "moaa-shared"))) == (1, 1)
        await other.ask("shared")
    assert (replicas(ns, "shared"), holders(ns, "moaa-shared")) == (0, [])


@pytest.mark.parametrize("gone", ["drained", "killed"])
async def test_a_pod_that_goes_under_calls_loses_none(
    ns: Namespace, cluster: Cluster, gone: str
) -> None:
    """If one of two pods is lost, the other gets its calls. If both are, calls wait."""
    engine(ns, gone, replicas=2, answer_s=0.3)
    force = ["--grace-period=0", "--force"] if gone == "killed" else []
    async with fleet(cluster, gone, calls=Calls(timeout_s=60, in_flight=4)) as bench:
        await bench.fleet.up([gone])
        await async_until(lambda: len(bench.client.pool(gone).endpoints) == 2, timeout_s=30)
        calls = [asyncio.create_task(bench.ask(gone, f"question {n}")) for n in range(50)]
        await asyncio.sleep(0.5)
        await at(ns.kubectl, "delete", "pod", pods(ns, gone)[0], "--wait=false", *force)
        await asyncio.sleep(1)
        await at(ns.kubectl, "delete", "pod", *pods(ns, gone), "--wait=false", *force)
        calls += [asyncio.create_task(bench.ask(gone, f"after {n}")) for n in range(8)]
        assert await asyncio.gather(*calls) == ["Hello"] * 58
        await async_until(lambda: bench.ledger.events["engine pods lost"] >= 2, timeout_s=60)
        assert bench.ledger.model(gone).failed == 0


async def test_a_pod_that_answers_nothing_is_deleted_and_its_calls_are_answered(
    ns: Namespace, cluster: Cluster
) -> None:
    engine(ns, "hung")
    async with fleet(cluster, "hung", calls=Calls(timeout_s=5, retries=0)) as bench:
        await bench.fleet.up(["hung"])
        (first,) = pods(ns, "hung")
        await bench.ask("hung", "Hang from now on.")
        asked = [bench.ask("hung", f"question {n}") for n in range(8)]
        assert await asyncio.gather(*asked) == ["Hello"] * 8
        assert first not in pods(ns, "hung")
        assert bench.ledger.events["engine pods that answered nothing any more"] == 1


async def test_watches_that_the_server_ends_are_opened_again(
    ns: Namespace, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[str] = []
    watch = Cluster.watch

    def short(self: Cluster, kind: Kind, labels: str, since: str, **fields: str) -> object:
        watched.append(kind.plural)
        return watch(self, kind, labels, since, **fields, timeout_s=1)

    monkeypatch.setattr(Cluster, "watch", short)
    engine(ns, "watched")
    async with fleet(cluster, "watched") as bench:
        await asyncio.sleep(3)
        await bench.fleet.up(["watched"])
        await at(ns.kubectl, "delete", "pod", *pods(ns, "watched"), "--grace-period=0", "--force")
        await async_until(lambda: bench.ledger.events["engine pods lost"] == 1, timeout_s=30)
        await bench.ask("watched")
    assert watched.count("pods") >= 3


def test_sigterm_gives_the_lease_back_at_once(
    ns: Namespace, cluster: Cluster, tmp_path: Path
) -> None:
    """Kubeflow's launcher kills the process 0.2 to 1 s after SIGTERM."""
    engine(ns, "ended")
    file = kubeconfig_of(ns, "moaa-pipeline", tmp_path)
    with holding("ended", ns, file) as child:
        assert replicas(ns, "ended") == 1
        begun = time.monotonic()
        child.terminate()
        while leases.on(cluster, "Deployment/moaa-ended"):
            assert time.monotonic() - begun < 30
            time.sleep(0.02)
        print(f"the lease was given back {(time.monotonic() - begun) * 1000:.0f} ms after SIGTERM")
        child.wait(30)
    assert replicas(ns, "ended") == 0


def holding(model: str, ns: Namespace, kubeconfig: Path) -> subprocess.Popen[str]:
    """Start a process that leases the model until it is stopped."""
    code = Path(__file__).with_name("holder.py")
    command = [sys.executable, str(code), model, ns.name]
    environment = os.environ | {
        "KUBECONFIG": str(kubeconfig),
        "PYTHONPATH": str(ROOT),
    }
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    return child


def test_the_namespace_is_left_as_it_was(ns: Namespace) -> None:
    """Scale all engines down after each test."""
    for each in ns.items("deployments", "app.kubernetes.io/part-of=moaa"):
        assert each["spec"]["replicas"] == 0, each["metadata"]["name"]
    assert run("kubectl", "get", "deployments", "-n", ns.name, "-o", "name")
