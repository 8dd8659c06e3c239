"""Engines of the chart that do not come up: what is said, and when."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from moaa.errors import ClusterError, EngineError
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import Kind
from tests.cluster.leased import (
    as_account,
    connected,
    engine,
    kubeconfig_of,
    replicas,
    with_engines,
)
from tests.cluster.tools import Namespace, needs_cluster, until
from tests.support.leasing import fleet
from tests.support.waiting import async_until

pytestmark = [needs_cluster, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with with_engines("engines-errors") as made:
        yield made


async def test_an_unschedulable_pod_s_event_is_shown(ns: Namespace, cluster: Cluster) -> None:
    engine(ns, "wide", resources={"limits": {"nvidia.com/gpu": "1000"}})
    async with fleet(cluster, "wide", start_timeout_s=15) as bench:
        up = asyncio.create_task(bench.fleet.up(["wide"]))
        await async_until(
            lambda: "cannot be scheduled" in bench.note, lambda: bench.note, timeout_s=15
        )
        assert re.match(
            r"waiting for wide: cannot be scheduled: 0/\d+ nodes are available: .*nvidia.com/gpu",
            bench.note,
        )
        with pytest.raises(EngineError) as caught:
            await up
        assert re.search(
            r"had no pod that answers for 15 s.* nvidia.com/gpu.*Free the pool.*\n  events of "
            r"moaa-wide",
            str(caught.value),
        )
        assert "\n    FailedScheduling: 0/" in str(caught.value)
    assert replicas(ns, "wide") == 0


async def test_a_bad_image_is_named(ns: Namespace, cluster: Cluster) -> None:
    engine(ns, "typo", image="registry.invalid/moaa/absent:1")
    async with fleet(cluster, "typo", start_timeout_s=25) as bench:
        with pytest.raises(EngineError) as caught:
            await bench.fleet.up(["typo"])
    assert re.search(
        r"container 'vllm' (ErrImagePull|ImagePullBackOff): .*registry.invalid/moaa/absent:1",
        str(caught.value),
    )
    assert "Correct the image in the chart's values" in str(caught.value)


async def test_a_crash_loop_ends_with_its_last_lines(ns: Namespace, cluster: Cluster) -> None:
    engine(
        ns,
        "cheese",
        command=["python3", "-c", "raise RuntimeError('the weights are made of cheese')"],
    )
    async with fleet(cluster, "cheese", max_restarts=1, start_timeout_s=120) as bench:
        with pytest.raises(EngineError) as caught:
            await bench.fleet.up(["cheese"])
    text = str(caught.value)
    assert "model 'cheese' was started again 2 times (runtime.engines.max_restarts: 1)" in text
    assert (
        "CrashLoopBackOff: the last ended with exit status 1" in text
        or "'vllm' ended with exit status 1" in text
    )
    assert "(vllm):\n" in text
    assert "RuntimeError: the weights are made of cheese" in text
    assert "BackOff: Back-off restarting failed container" in text
    assert replicas(ns, "cheese") == 0


async def test_fetching_weights_is_shown(ns: Namespace, cluster: Cluster) -> None:
    engine(ns, "fetched", init=["python3", "-c", "import time; time.sleep(8)"])
    async with fleet(cluster, "fetched") as bench:
        up = asyncio.create_task(bench.fleet.up(["fetched"]))
        await async_until(
            lambda: "init container 'fetch' runs, for" in bench.note,
            lambda: bench.note,
            timeout_s=60,
        )
        await up


async def test_what_a_quota_refuses_is_shown(ns: Namespace, cluster: Cluster) -> None:
    engine(ns, "refused", resources={"limits": {"memory": "2Ti"}})
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"limits.memory": "1Ti"}},
    }
    ns.apply(quota)
    until(
        lambda: ns.get("resourcequota", "small").get("status", {}).get("hard"), "the quota's status"
    )
    try:
        async with fleet(cluster, "refused", start_timeout_s=12) as bench:
            with pytest.raises(
                EngineError, match=r"no pod can be created: .*exceeded quota: small.*Ask for less"
            ):
                await bench.fleet.up(["refused"])
    finally:
        ns.kubectl("delete", "resourcequota", "small")


async def test_a_missing_deployment_says_how_to_install_it(ns: Namespace, cluster: Cluster) -> None:
    async with fleet(cluster, "nowhere") as bench:
        with pytest.raises(
            EngineError,
            match=rf"helm upgrade --install ensemble helm/moaa-serving --namespace {ns.name}",
        ):
            await bench.fleet.up(["nowhere"])


async def test_an_account_without_rights_gets_a_readable_error(
    ns: Namespace, tmp_path: Path
) -> None:
    ns.kubectl("create", "serviceaccount", "nobody")
    with (
        as_account(ns, "nobody", tmp_path) as poor,
        pytest.raises(ClusterError) as caught,
    ):
        async with fleet(poor, "shared"):
            raise AssertionError
    account = f"system:serviceaccount:{ns.name}:nobody"
    assert re.match(
        rf"the account '{account}' may not list \S+ in namespace '{ns.name}': its Role lacks",
        str(caught.value),
    )


async def test_a_token_that_is_no_good(ns: Namespace, tmp_path: Path) -> None:
    file = kubeconfig_of(ns, "default", tmp_path)
    file.write_text(re.sub(r'"token": "[^"]*"', '"token": "forged"', file.read_text()))
    with (
        connected(file, ns.name) as poor,
        pytest.raises(ClusterError, match="does not accept this login"),
    ):
        poor.list(Kind("v1", "pods", "Pod"))
