"""What the gateway may do on a real cluster, with its own account: read, wake, guard, and nothing
else. The gateway itself runs here, not in a pod: `test_gateway.py` has the rest."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa.gateway.backend import Backend
from moaa.gateway.discovery import Discovery
from moaa.gateway.places import place_of, slots_of
from moaa.gateway.slots import Slots, revision_of
from moaa.gateway.traffic_split import TrafficSplit, WatchedSlots, count, roll_back
from moaa.gateway.waker import Waker, WakeTimes
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Forbidden
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, LEASES
from moaa.kubernetes.mirror import Mirror
from tests.charts.render import SERVING
from tests.cluster.charts import SERVING_KINDS, install
from tests.cluster.leased import as_account, connected, holders
from tests.cluster.tools import Namespace, namespace, needs_cluster, tried, until
from tests.support.waiting import async_until

pytestmark = needs_cluster
OLD, NEW = "s3://moaa/models/v1", "s3://moaa/models/v2"
VALUES: dict[str, Any] = {
    "images": {"serve": "moaa/none:1", "core": "moaa/none:1"},
    "imagePullPolicy": "Never",
    "poolDefaults": {"device": "cpu"},
    "models": [
        {"name": "always", "source": "fake/model", "replicas": 1},
        {"name": "sleepy", "source": "fake/model"},
    ],
    "promoted": [{"name": "aligned", "pointers": "s3://moaa/pointers/aligned"}],
    "gateway": {"enabled": True, "wake": {"enabled": True}},
}


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("gateway-rights") as made:
        install(made, "ens", SERVING, VALUES, wait=False)
        yield made


@pytest.fixture
def account(ns: Namespace, tmp_path: Path) -> Iterator[Cluster]:
    """The cluster with the rights of the gateway."""
    with as_account(ns, "ens-gateway", tmp_path) as cluster:
        yield cluster


@pytest.fixture
def owner(ns: Namespace) -> Iterator[Cluster]:
    """The cluster with our own rights."""
    with connected(os.environ["KUBECONFIG"], ns.name) as cluster:
        yield cluster


def promoted() -> TrafficSplit:
    return TrafficSplit("aligned", {slot: Backend(f"aligned-{slot}") for slot in "ab"}, Slots())


def shared(ns: Namespace, candidate: int) -> None:
    """Write the shares as a promotion does."""
    slots = Slots().holding("a", OLD).holding("b", NEW).sharing(candidate, "a test", "now")
    patch = json.dumps({"data": slots.data()})
    ns.kubectl("patch", "configmap", "ens-aligned", "--type", "merge", "-p", patch)


def test_its_account_may_change_its_own_objects_alone(ns: Namespace) -> None:
    account = f"--as=system:serviceaccount:{ns.name}:ens-gateway"

    def may(*what: str) -> bool:
        asked = tried("kubectl", "-n", ns.name, "auth", "can-i", *what, account)
        return asked.stdout.strip() == "yes"

    assert may("patch", "configmaps/ens-aligned")
    assert may("patch", "deployments/ens-sleepy", "--subresource=scale")
    assert may("create", "events")
    assert not may("patch", "configmaps/ens-gateway")
    assert not may("get", "configmaps/ens-gateway")
    assert not may("patch", "deployments/ens-always", "--subresource=scale")
    assert not may("patch", "deployments/ens-sleepy")
    assert not may("delete", "leases/another")
    assert not may("get", "secrets")
    assert not may("list", "pods")


async def test_it_follows_its_config_map_within_two_seconds_and_no_other(
    ns: Namespace, account: Cluster
) -> None:
    shared(ns, 0)
    model = promoted()
    watch = WatchedSlots(account, "ens-aligned", model, "a test")
    await watch.open()
    try:
        assert model.shares["b"] == 0
        shared(ns, 25)
        changed = time.monotonic()
        await async_until(lambda: model.shares["b"] == 25, "the new share")
        assert time.monotonic() - changed < 2
    finally:
        watch.close()
    with pytest.raises(Forbidden):
        Mirror(account, CONFIG_MAPS, "", lambda: None, fields="metadata.name=ens-gateway").start()


def test_it_counts_requests_rolls_back_once_and_says_why(ns: Namespace, account: Cluster) -> None:
    shared(ns, 25)
    revision = revision_of(NEW)
    for pod in ("one", "two"):
        count(account, "ens-aligned", (revision, 25, "now"), pod, 4)
    assert Slots.of(ns.get("configmap", "ens-aligned")["data"]).answered == 8
    done = [roll_back(account, "ens-aligned", revision, "9 of 9 failed", "pod") for _ in "12"]
    assert done == [True, False]
    found = Slots.of(ns.get("configmap", "ens-aligned")["data"])
    assert (found.shares, found.reason) == ({"a": 100.0, "b": 0.0}, "9 of 9 failed")
    assert not found.requests
    told = [each for each in ns.items("events") if each["reason"] == "MoaaRolledBack"]
    assert [each["message"] for each in told] == ["9 of 9 failed"]


async def test_two_of_it_wake_a_model_once_and_its_lease_goes_with_the_model(
    ns: Namespace, account: Cluster, owner: Cluster
) -> None:
    before = owner.get(DEPLOYMENTS, "ens-sleepy")["metadata"]["generation"]
    for _ in "12":
        backends = {"ens-sleepy": Backend("sleepy")}
        discovery = Discovery(account, backends)
        await discovery.open()
        assert backends["ens-sleepy"].asleep
        waker = Waker(account, backends, discovery.deployment, "gateway/ens", WakeTimes(hold_s=5))
        waker.wake("ens-sleepy")
        await waker.close()
        waker.wake("ens-sleepy")  # it would raise, had the cluster refused
        discovery.close()
    after = owner.get(DEPLOYMENTS, "ens-sleepy")
    assert after["spec"]["replicas"] == 1
    assert after["metadata"]["generation"] == before + 1
    assert holders(ns, "ens-sleepy") == ["gateway/ens/ens-sleepy"]


def test_an_upgrade_leaves_the_shares_alone(ns: Namespace, owner: Cluster) -> None:
    shared(ns, 25)
    gateway = {**VALUES["gateway"], "config": {"limits": {"in_flight": 9}}}
    install(ns, "ens", SERVING, {**VALUES, "gateway": gateway}, wait=False)
    assert slots_of(owner, place_of(owner, "aligned")).shares == {"a": 75.0, "b": 25.0}


def test_nothing_is_left_after_it_is_uninstalled(ns: Namespace, owner: Cluster) -> None:
    ns.helm("uninstall", "ens")
    mine = "app.kubernetes.io/instance=ens"
    until(lambda: not ns.kubectl("get", SERVING_KINDS, "-l", mine, "-o", "name").split(), "the end")
    until(lambda: not owner.list(LEASES), "the end of its leases", 90)
