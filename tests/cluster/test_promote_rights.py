"""Who promotes, on a real cluster, with the rights of the pipeline's account: the shares and the
scale of the two slots, and nothing else of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa.gateway.slots import Slots
from moaa.gateway.traffic_split import event
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Forbidden
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, EVENTS, PODS, SLICES, Kind
from moaa.kubernetes.leases import Lease
from moaa.preflight.slots import findings
from moaa.recipe.load import load_file
from tests.charts.render import PLATFORM, SERVING
from tests.cluster.charts import install
from tests.cluster.leased import as_account
from tests.cluster.test_gateway_rights import VALUES
from tests.cluster.tools import Namespace, namespace, needs_cluster, tried
from tests.support.paths import DEMO

pytestmark = needs_cluster
ACCOUNT = "moaa-pipeline"
ENGINES = ["ens-sleepy"]
"""What the platform chart lets the pipeline scale: the slots are not among them."""


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("promote-rights") as made:
        platform = {
            "images": {"core": "moaa/none:1", "train": "moaa/none:1"},
            "imagePullPolicy": "Never",
            "pipeline": {"deployments": ENGINES},
        }
        install(made, "platform", PLATFORM, platform, wait=False)
        install(made, "ens", SERVING, VALUES, wait=False)
        yield made


@pytest.fixture
def account(ns: Namespace, tmp_path: Path) -> Iterator[Cluster]:
    """The cluster with the rights of the pipeline's account."""
    with as_account(ns, ACCOUNT, tmp_path) as cluster:
        yield cluster


def refused(account: Cluster, kind: Kind, name: str, patch: dict[str, Any], part: str = "") -> bool:
    """Return whether the cluster refuses this patch."""
    try:
        account.update(kind, name, lambda found: patch, part=part)
    except Forbidden:
        return True
    return False


def test_it_changes_the_shares_and_says_why(ns: Namespace, account: Cluster) -> None:
    slots = Slots().holding("b", "s3://moaa/models/v2").sharing(25, "a test", "now")
    account.update(CONFIG_MAPS, "ens-aligned", lambda found: {"data": slots.data()})
    assert Slots.of(ns.get("configmap", "ens-aligned")["data"]) == slots
    about = account.get(CONFIG_MAPS, "ens-aligned")
    account.create(EVENTS, event(about, "MoaaNotPromoted", "a test", "moaa promote"))
    told = [each["message"] for each in ns.items("events") if each["reason"] == "MoaaNotPromoted"]
    assert told == ["a test"]


@pytest.mark.parametrize("slot", ["ens-aligned-a", "ens-aligned-b"])
def test_it_scales_the_slots_under_its_lease_and_looks_at_them(account: Cluster, slot: str) -> None:
    lease = Lease(account, DEPLOYMENTS, slot, "run/promote/1")
    lease.renew()
    patch = {"spec": {"replicas": 1}}
    written = account.update(DEPLOYMENTS, slot, lambda found: patch, part="scale")
    assert written["spec"]["replicas"] == 1
    assert slot in {each["metadata"]["name"] for each in account.list(DEPLOYMENTS)}
    account.list(PODS)
    account.list(SLICES)
    lease.release()


def test_it_changes_nothing_else_of_them(account: Cluster) -> None:
    image = {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}
    for name in ("ens-aligned-a", "ens-aligned-b"):
        assert refused(account, DEPLOYMENTS, name, image)
        assert refused(account, DEPLOYMENTS, name, {"spec": {"replicas": 0}})
    for name in ("ens-gateway", "kube-root-ca.crt"):
        assert refused(account, CONFIG_MAPS, name, {"data": {"a": "b"}})
    assert refused(account, DEPLOYMENTS, "ens-always", {"spec": {"replicas": 0}}, part="scale")


def test_preflight_sees_who_may_and_who_may_not(ns: Namespace, tmp_path: Path) -> None:
    sets = ("gate={}", "publish={}", "promote={slots: aligned}")
    namespace_of_it = f"runtime.cluster.namespace={ns.name}"
    recipe = load_file(DEMO, [*sets, namespace_of_it]).recipe
    found = list(findings(recipe, in_pods=True))
    assert [each.word for each in found] == ["ok", "ok"], found
    with as_account(ns, ACCOUNT, tmp_path):
        found = list(findings(recipe, in_pods=False))
    assert [each.word for each in found] == ["ok", "ok"], found
    with as_account(ns, "ens-gateway", tmp_path):
        found = list(findings(recipe, in_pods=False))
    assert found[-1].word == "FAIL", found
    other = load_file(DEMO, [*sets, namespace_of_it, "promote.slots=other"]).recipe
    (missing,) = findings(other, in_pods=True)
    assert missing.detail.startswith("there is no promoted model 'other'")


def test_the_cluster_says_the_same_of_what_was_not_tried(ns: Namespace) -> None:
    as_it = f"--as=system:serviceaccount:{ns.name}:{ACCOUNT}"

    def may(*what: str) -> bool:
        asked = tried("kubectl", "-n", ns.name, "auth", "can-i", *what, as_it)
        return asked.stdout.strip() == "yes"

    assert may("patch", "configmaps/ens-aligned")
    for verb, what in (
        ("delete", "configmaps/ens-aligned"),
        ("create", "configmaps"),
        ("list", "configmaps"),
        ("delete", "deployments/ens-aligned-a"),
        ("create", "deployments"),
        ("get", "secrets"),
        ("patch", "services/ens-aligned-a"),
    ):
        assert not may(verb, what), f"{verb} {what}"
