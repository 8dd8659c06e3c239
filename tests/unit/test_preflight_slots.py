"""Preflight looks at the slots that a run promotes to, before anything is paid."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moaa.errors import ClusterError
from moaa.gateway.slots import Slots, revision_of
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS
from moaa.kubernetes.names import POINTERS, PROMOTED, SERVICE
from moaa.kubernetes.names import SLOTS as OF_SLOTS
from moaa.preflight import machine, slots
from moaa.preflight.finding import Finding
from moaa.preflight.kinds import MY_REVIEWS, REVIEWS
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from moaa.stages import preflight
from moaa.stages.table import of_recipe
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_ensemble import deployment
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

V1 = "s3://memory/root/models/v1"
SETS = ("gate={}", "publish={}", "promote={slots: aligned}")


def recipe(*sets: str) -> Recipe:
    return load_file(DEMO, [*SETS, *sets]).recipe


def serving(**more: str) -> FakeCluster:
    """A cluster with the slots of `aligned`. `more`: annotations of their ConfigMap."""
    names = {slot: f"ens-aligned-{slot}" for slot in "ab"}
    annotations = {
        **more,
        OF_SLOTS: json.dumps(names),
        POINTERS: "s3://memory/root/pointers/aligned",
    }
    metadata = {"name": "ens-aligned", "labels": {PROMOTED: "aligned"}, "annotations": annotations}
    data = Slots().holding("a", V1).data()
    return (
        FakeCluster()
        .put(CONFIG_MAPS, {"metadata": metadata, "data": data})
        .put(DEPLOYMENTS, *(deployment(name, f"aligned-{slot}") for slot, name in names.items()))
    )


def look(
    there: FakeCluster, monkeypatch: pytest.MonkeyPatch, *sets: str, in_pods: bool = False
) -> list[Finding]:
    monkeypatch.setattr(Cluster, "connect", lambda namespace: there)
    return list(slots.findings(recipe(*sets), in_pods=in_pods))


@pytest.mark.parametrize("in_pods", [True, False])
def test_slots_that_are_there_and_may_be_changed(
    monkeypatch: pytest.MonkeyPatch, in_pods: bool
) -> None:
    found = look(serving(), monkeypatch, in_pods=in_pods)
    assert [each.word for each in found] == ["ok", "ok"]
    assert "ens-aligned-a and ens-aligned-b exist" in found[0].detail
    assert revision_of(V1) in found[0].detail


@pytest.mark.parametrize(
    ("sets", "gone"),
    [
        (["promote.slots=alinged"], None),
        ([], (CONFIG_MAPS, "ens-aligned")),
        ([], (DEPLOYMENTS, "ens-aligned-b")),
    ],
    ids=["another name", "no ConfigMap", "no Deployment"],
)
def test_slots_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, sets: list[str], gone: Any
) -> None:
    there = serving()
    if gone:
        there.remove(*gone)
    (found,) = look(there, monkeypatch, *sets, in_pods=True)
    assert found.word == "FAIL"
    assert "no promoted model 'al" in found.detail
    assert "in namespace 'team'" in found.detail
    assert "moaa-serving" in found.fix


@pytest.mark.parametrize(
    ("verb", "resource", "but", "said"),
    [
        ("patch", "configmaps", (), "may not patch configmaps ens-aligned in"),
        (
            "patch",
            "deployments/scale",
            ("ens-aligned-a",),
            "may not patch deployments.apps/scale ens-aligned-b in",
        ),
        ("create", "leases", (), "may not create leases.coordination.k8s.io in"),
        ("list", "pods", (), "may not list pods in"),
        ("create", "events", (), "may not create events in"),
        ("patch", "services", (), "may not patch services ens-aligned in"),
    ],
)
def test_rights_that_the_pipelines_account_lacks(
    monkeypatch: pytest.MonkeyPatch, verb: str, resource: str, but: Any, said: str
) -> None:
    there = serving(**{SERVICE: "ens-aligned"}).deny(verb, resource, but=but)
    _, found = look(there, monkeypatch, in_pods=True)
    assert found.word == "FAIL"
    assert f"the account 'moaa-pipeline' {said} namespace 'team'" in found.detail
    assert "promotedBy" in found.fix


def test_with_a_gateway_no_service_is_switched(monkeypatch: pytest.MonkeyPatch) -> None:
    there = serving().deny("patch", "services")
    assert look(there, monkeypatch)[1].ok


@pytest.mark.parametrize(
    ("in_pods", "review", "user"),
    [(True, REVIEWS, "system:serviceaccount:team:moaa-pipeline"), (False, MY_REVIEWS, None)],
    ids=["the stages run in pods", "the stages run here"],
)
def test_whose_rights_are_asked_about(
    monkeypatch: pytest.MonkeyPatch, in_pods: bool, review: Any, user: str | None
) -> None:
    there = serving()
    look(there, monkeypatch, in_pods=in_pods)
    assert {each["kind"] for each in there.reviews} == {review.name}
    assert {each["spec"].get("user") for each in there.reviews} == {user}


def test_the_pipelines_account_is_of_its_own_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    there, own = serving(), FakeCluster()
    there.namespace = "serving"
    by_name = {"serving": there, None: own}
    monkeypatch.setattr(Cluster, "connect", lambda namespace: by_name[namespace])
    found = list(slots.findings(recipe("promote.namespace=serving"), in_pods=True))
    assert all(each.ok for each in found)
    (user,) = {each["spec"]["user"] for each in there.reviews}
    assert user == "system:serviceaccount:team:moaa-pipeline"


@pytest.mark.parametrize(("in_pods", "word"), [(True, "?"), (False, "FAIL")])
@pytest.mark.parametrize("kind", [CONFIG_MAPS, DEPLOYMENTS])
def test_what_this_account_may_not_read_is_no_fault_of_the_pipelines(
    monkeypatch: pytest.MonkeyPatch, in_pods: bool, word: str, kind: Any
) -> None:
    (found,) = look(serving().forbid(kind), monkeypatch, in_pods=in_pods)
    assert found.word == word


def test_who_may_not_ask_about_rights_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = look(serving().forbid(REVIEWS), monkeypatch, in_pods=True)
    assert (first.word, second.word) == ("ok", "?")


def test_a_cluster_that_is_not_reached_fails_as_the_stage_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreached(namespace: str | None) -> Cluster:
        raise ClusterError("there is no kubeconfig")

    monkeypatch.setattr(Cluster, "connect", unreached)
    (found,) = slots.findings(recipe(), in_pods=False)
    assert (found.word, found.detail) == ("FAIL", "there is no kubeconfig")
    assert "only the production pointer moves" in found.fix


@pytest.mark.parametrize(
    ("sets", "stages", "looks"),
    [
        (SETS, 99, True),
        (SETS, -1, False),  # another task of the run promotes
        (("gate={}", "publish={}", "promote={}"), 99, False),
        (("gate={}", "publish={}"), 99, False),
    ],
)
@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_run_that_promotes_to_slots_is_checked_here_and_in_its_stage(
    monkeypatch: pytest.MonkeyPatch, sets: Any, stages: int, looks: bool, elsewhere: bool
) -> None:
    monkeypatch.setattr(Cluster, "connect", lambda namespace: serving())
    monkeypatch.setattr(machine, "findings", lambda *_, **more: [])
    given = load_file(DEMO, sets).recipe
    run = of_recipe(given)[:stages]
    store: Any = MemoryStore()
    found = preflight.findings(given, store, run, elsewhere=elsewhere)
    assert {each.check for each in found} == ({"slots"} if looks else set())
