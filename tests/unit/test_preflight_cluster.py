"""Preflight on a cluster: one thing is wrong, and it is named with its fix."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from moaa.kubernetes.kinds import DEPLOYMENTS
from moaa.preflight.kinds import (
    ACCOUNTS,
    LIMIT_RANGES,
    NODES,
    QUOTAS,
    RUNTIMES,
    SECRETS,
)
from tests.support.fake_cluster import FakeCluster
from tests.support.healthy_cluster import (
    deployment,
    healthy,
    look,
    named,
    recipe,
    secret,
)

pytestmark = pytest.mark.usefixtures("s3_tells_the_time")
Change = Callable[[FakeCluster], Any]


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


def test_models_that_no_pod_could_serve_are_a_finding() -> None:
    sets = ["runtime.engines.kind=process", "pools.b.gpus=4", "models.gemma-2-27b.pool=b"]
    (bad,) = [each for each in look(healthy(), *sets) if each.word == "FAIL"]
    assert "name the pools a100, b" in bad.detail
