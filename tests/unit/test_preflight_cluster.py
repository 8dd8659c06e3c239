"""Each finding about the cluster, provoked once, and each time only that one."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from moaa.kubernetes import names
from moaa.kubernetes.kinds import DEPLOYMENTS, JOBS, TRAIN_JOBS
from moaa.placement import helm_values
from moaa.preflight import clocks, cluster
from moaa.preflight.finding import Finding
from moaa.preflight.kinds import (
    ACCOUNTS,
    LIMIT_RANGES,
    MY_REVIEWS,
    NODES,
    QUOTAS,
    REVIEWS,
    RUNTIMES,
    SECRETS,
)
from moaa.recipe import Recipe
from moaa.recipe.load import load_file
from moaa.stages.table import STAGES
from tests.support.fake_cluster import FakeCluster
from tests.support.memory_store import MemoryStore
from tests.support.paths import PAPER

SETS = [
    "runtime.engines.kind=kubernetes",
    "runtime.launcher.kind=trainer",
    "runtime.cluster.image_pull_secrets=[registry]",
    "models.qwen2-72b.endpoint={url: https://x/v1, key_env: QWEN_KEY}",
]
Change = Callable[[FakeCluster], Any]


def recipe(*sets: str) -> Recipe:
    return load_file(PAPER, [*SETS, *sets]).recipe


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **more}


def secret(name: str, *keys: str, kind: str = "Opaque") -> dict[str, Any]:
    return named(
        name, type=kind, data={key: base64.b64encode(b"never shown").decode() for key in keys}
    )


def node(name: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}}
    allocatable = {"cpu": "96", "memory": "1100Gi", "nvidia.com/gpu": "8"}
    return {"metadata": metadata, "spec": {}, "status": {"allocatable": allocatable}}


def deployment(model: str, found: Recipe) -> dict[str, Any]:
    dns = names.dns(model)
    spec = json.dumps(helm_values.spec(model, found.models[model]))
    return {
        "metadata": {
            "name": f"moaa-{dns}",
            "labels": {names.MODEL: dns},
            "annotations": {helm_values.SPEC: spec},
        }
    }


@pytest.fixture(autouse=True)
def s3_tells_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "of_url", lambda url: time.time())


def healthy(*, inside: bool = False) -> FakeCluster:
    found = recipe()
    return (
        FakeCluster(inside=inside)
        .put(DEPLOYMENTS, *(deployment(model, found) for model in helm_values.served(found)))
        .put(ACCOUNTS, named("moaa-pipeline"))
        .put(RUNTIMES, named("moaa-train-a100"))
        .put(SECRETS, secret("moaa-s3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
        .put(
            SECRETS,
            secret("moaa-env", "HF_TOKEN", "QWEN_KEY"),
            secret("registry", kind=cluster.PULL),
        )
        .put(NODES, *(node(f"n{i}") for i in range(4)))
    )


def look(there: FakeCluster, *sets: str, kubeflow: bool = False) -> list[Finding]:
    store: Any = MemoryStore()
    return list(cluster.findings(recipe(*sets), store, there, STAGES, kubeflow=kubeflow))  # type: ignore[arg-type]


def test_all_is_well() -> None:
    found = look(healthy())
    assert [each for each in found if each.word != "ok"] == []
    checks = ["cluster", "training", "ensemble", "account", "secret", "rights", "pool", "clock"]
    assert list(dict.fromkeys(each.check for each in found)) == checks


def no_key(there: FakeCluster) -> None:
    there.put(SECRETS, secret("moaa-s3", "AWS_ACCESS_KEY_ID"))


def other_type(there: FakeCluster) -> None:
    there.put(SECRETS, secret("registry"))


def other_length(there: FakeCluster) -> None:
    there.put(
        DEPLOYMENTS, deployment("gemma-2-27b", recipe("models.gemma-2-27b.max_model_len=4096"))
    )


def small_quota(there: FakeCluster) -> None:
    there.put(QUOTAS, named("team", spec={"hard": {"requests.nvidia.com/gpu": "4"}}))


def two_nodes(there: FakeCluster) -> None:
    there.remove(NODES, "n0").remove(NODES, "n1")


def late(there: FakeCluster) -> None:
    there.ahead_s = -300


@pytest.mark.parametrize(
    ("change", "check", "detail", "fix"),
    [
        (
            lambda there: there.remove(DEPLOYMENTS, "moaa-gemma-2-27b"),
            "ensemble",
            "no Deployment is labelled",
            "helm-values",
        ),
        (other_length, "ensemble", "max_model_len is 4096, the recipe says 8192", "helm-values"),
        (
            lambda there: there.remove(ACCOUNTS, "moaa-pipeline"),
            "account",
            "no ServiceAccount 'moaa-pipeline'",
            "platform",
        ),
        (
            lambda there: there.remove(RUNTIMES, "moaa-train-a100"),
            "training",
            "no TrainingRuntime 'moaa-train-a100'",
            "platform",
        ),
        (
            lambda there: there.remove(SECRETS, "moaa-s3"),
            "secret",
            "no Secret 'moaa-s3'",
            "--from-literal=AWS_ACCESS_KEY_ID=…",
        ),
        (
            no_key,
            "secret",
            "Secret 'moaa-s3' lacks AWS_SECRET_ACCESS_KEY",
            "create secret generic moaa-s3",
        ),
        (
            lambda there: there.put(SECRETS, secret("moaa-env", "HF_TOKEN")),
            "secret",
            "'moaa-env' lacks QWEN_KEY",
            "QWEN_KEY=…",
        ),
        (
            lambda there: there.remove(SECRETS, "registry"),
            "secret",
            "no Secret 'registry'",
            "docker-registry",
        ),
        (
            other_type,
            "secret",
            "is of type Opaque, not kubernetes.io/dockerconfigjson",
            "docker-registry",
        ),
        (
            lambda there: there.deny("patch", "deployments/scale"),
            "rights",
            "may not patch deployments.apps/scale",
            "moaa-platform",
        ),
        (
            lambda there: there.deny("watch", "endpointslices"),
            "rights",
            "may not watch endpointslices",
            "moaa-platform",
        ),
        (
            lambda there: there.deny("create", "trainjobs"),
            "rights",
            "may not create trainjobs",
            "moaa-platform",
        ),
        (
            lambda there: there.deny("get", "pods/log"),
            "rights",
            "may not get pods/log",
            "moaa-platform",
        ),
        (two_nodes, "pool", "with 16 nvidia.com/gpu; generate needs 18", "by-turns"),
        (small_quota, "quota", "ResourceQuota 'team': requests.nvidia.com/gpu: 4 left", "raised"),
        (late, "clock", "Kubernetes is 300 s behind", "NTP"),
    ],
)
def test_one_thing_is_wrong(change: Change, check: str, detail: str, fix: str) -> None:
    there = healthy()
    change(there)
    (bad,) = [each for each in look(there) if each.word != "ok"]
    assert (bad.check, bad.word) == (check, "FAIL")
    assert detail in bad.detail
    assert fix in bad.fix
    assert "never shown" not in repr(bad)
    assert base64.b64encode(b"never shown").decode() not in repr(bad)


def test_a_quota_that_kubeflows_containers_do_not_pass() -> None:
    there = healthy().put(QUOTAS, named("team", spec={"hard": {"limits.cpu": "9999"}}))
    (bad,) = [each for each in look(there, kubeflow=True) if each.word != "ok"]
    assert "no LimitRange" in bad.detail
    there.put(
        LIMIT_RANGES,
        named("defaults", spec={"limits": [{"type": "Container", "default": {"cpu": "1"}}]}),
    )
    assert all(each.ok for each in look(there, kubeflow=True))


def test_without_trainer_indexed_jobs_are_chosen_and_their_rights_looked_at() -> None:
    there = healthy().unknown(TRAIN_JOBS).deny("create", "jobs")
    found = look(there)
    assert any(
        each.detail == "Kubeflow Trainer is not installed: trainings run as Indexed Jobs"
        and each.ok
        for each in found
    )
    (bad,) = [each for each in found if each.word != "ok"]
    assert "may not create jobs.batch" in bad.detail


def test_jobs_on_purpose() -> None:
    found = look(healthy(), "runtime.launcher.kind=job")
    assert [each.detail for each in found if each.check == "training"] == [
        "trainings run as Indexed Jobs (runtime.launcher.kind)"
    ]


@pytest.mark.parametrize(
    ("forbidden", "check"),
    [
        (NODES, "pool"),
        (QUOTAS, "quota"),
        (SECRETS, "secret"),
        (RUNTIMES, "training"),
        (DEPLOYMENTS, "ensemble"),
    ],
)
def test_what_may_not_be_seen_is_said_and_fails_nothing(forbidden: Any, check: str) -> None:
    found = [each for each in look(healthy().forbid(forbidden)) if each.word != "ok"]
    assert found
    assert {(each.check, each.word) for each in found} == {(check, "?")}


@pytest.mark.parametrize(
    ("inside", "review", "user"),
    [(True, MY_REVIEWS, None), (False, REVIEWS, "system:serviceaccount:team:moaa-pipeline")],
    ids=["in a pod", "from a laptop"],
)
def test_whose_rights_are_asked_about(inside: bool, review: Any, user: str | None) -> None:
    there = healthy(inside=inside)
    look(there)
    assert {each["kind"] for each in there.reviews} == {review.name}
    assert {each["spec"].get("user") for each in there.reviews} == {user}
    asked = {
        (each["spec"]["resourceAttributes"]["resource"], each["spec"]["resourceAttributes"]["verb"])
        for each in there.reviews
    }
    assert {
        ("deployments", "watch"),
        ("leases", "create"),
        ("trainjobs", "delete"),
        ("endpointslices", "watch"),
        ("events", "list"),
    } <= asked
    assert not {(what, verb) for what, verb in asked if what in ("secrets", "nodes", "configmaps")}


def test_who_may_not_ask_is_told_so() -> None:
    (found,) = [each for each in look(healthy().forbid(REVIEWS)) if each.word != "ok"]
    assert (found.check, found.word) == ("rights", "?")


def test_the_right_to_scale_may_be_limited_to_the_ensembles_deployments() -> None:
    """The platform chart does so where its value pipeline.deployments names them."""
    ensemble = [f"moaa-{names.dns(model)}" for model in helm_values.served(recipe())]
    found = look(healthy().deny("patch", "deployments/scale", but=ensemble))
    assert [each for each in found if each.word != "ok"] == []
    (bad,) = [
        each
        for each in look(healthy().deny("patch", "deployments/scale", but=ensemble[1:]))
        if each.word != "ok"
    ]
    assert "may not patch deployments.apps/scale" in bad.detail


def test_an_account_without_any_right_fails_by_each() -> None:
    there = healthy(inside=True).forbid(DEPLOYMENTS)
    for verb in ("get", "list", "watch"):
        there.deny(verb, "deployments")
    (bad,) = [each for each in look(there) if not each.ok]
    assert bad.detail.startswith("this pod's account may not get, list, watch deployments.apps")


def test_engines_alone_need_no_rights_on_trainings() -> None:
    there = healthy()
    look(there, "runtime.launcher.kind=process")
    assert not {each["spec"]["resourceAttributes"]["resource"] for each in there.reviews} & {
        TRAIN_JOBS.plural,
        JOBS.plural,
    }


def test_models_that_no_pod_could_serve_are_a_finding() -> None:
    sets = ["runtime.engines.kind=process", "pools.b.gpus=4", "models.gemma-2-27b.pool=b"]
    (bad,) = [each for each in look(healthy(), *sets) if each.word == "FAIL"]
    assert "name the pools a100, b" in bad.detail
