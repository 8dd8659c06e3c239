"""Preflight against a real cluster: all is well, then each finding provoked once by a real object
that is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa.kubernetes import names
from moaa.placement import helm_values
from moaa.preflight import cluster as checks
from moaa.preflight.finding import Finding
from moaa.recipe import Recipe
from moaa.recipe.load import load_file
from moaa.stages.table import STAGES
from tests.charts.render import PLATFORM
from tests.cluster.charts import install
from tests.cluster.gpus import pretended
from tests.cluster.leased import as_account, connected
from tests.cluster.tools import Namespace, namespace, needs_cluster, run
from tests.conftest import S3
from tests.support.paths import DEMO, ROOT

pytestmark = [needs_cluster, pytest.mark.timeout(180)]
IMAGE = "python:3.11-slim"
ACCELERATOR, LABEL = "moaa.test/pipe-gpu", "moaa.test/pipe-pool"
POOL = f"accelerator: {ACCELERATOR}, gpus: 4, cpus: 0.1, memory_gib: 0.2, shm_gib: 0.1"
SETS = [
    "runtime.engines.kind=kubernetes",
    "runtime.launcher={kind: trainer, ranks: 2, device: cuda, pool: test}",
    "runtime.cluster.image_pull_secrets=[registry]",
    "runtime.secret_envs=[HF_TOKEN]",
    f"pools.test={{node_selector: {{{LABEL}: here}}, {POOL}}}",
    "models.smollm2.pool=test",
    "models.smollm2.source=some/model",
]


def recipe(ns: Namespace, *sets: str) -> Recipe:
    return load_file(DEMO, [*SETS, f"runtime.cluster.namespace={ns.name}", *sets]).recipe


def secret(name: str, kind: str = "Opaque", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": kind,
        "stringData": data,
    }


def deployment(found: Recipe) -> dict[str, Any]:
    labels = {names.PART_OF: names.OURS, names.MODEL: "smollm2"}
    spec = json.dumps(helm_values.spec("smollm2", found.models["smollm2"]))
    pod = {"containers": [{"name": "vllm", "image": IMAGE}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "ensemble-smollm2",
            "labels": labels,
            "annotations": {helm_values.SPEC: spec},
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


SECRETS = {
    "moaa-s3": secret("moaa-s3", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="hidden-value"),
    "moaa-env": secret("moaa-env", HF_TOKEN="hidden-value"),
    "registry": secret("registry", checks.PULL, **{".dockerconfigjson": '{"auths": {}}'}),
}


@pytest.fixture(scope="module")
def gpus() -> Iterator[str]:
    with pretended(ACCELERATOR, LABEL, 4) as node:
        yield node


@pytest.fixture(scope="module")
def ns(gpus: str) -> Iterator[Namespace]:
    with namespace("pipe-preflight") as made:
        values = helm_values.platform(recipe(made))
        values |= {"images": {"core": IMAGE, "train": IMAGE}, "reaper": {"enabled": False}}
        install(made, "platform", PLATFORM, values)
        made.apply([deployment(recipe(made)), *SECRETS.values()])
        yield made


def look(
    ns: Namespace, s3: S3, *sets: str, kubeconfig: Path | str = "", kubeflow: bool = False
) -> list[Finding]:
    with connected(kubeconfig or os.environ["KUBECONFIG"], ns.name) as cluster:
        return list(
            checks.findings(recipe(ns, *sets), s3.store, cluster, STAGES, kubeflow=kubeflow)
        )


def wrong(found: list[Finding]) -> list[tuple[str, str]]:
    assert "hidden-value" not in repr(found)
    return [(each.check, each.detail) for each in found if each.word == "FAIL"]


def test_all_is_well(ns: Namespace, s3: S3) -> None:
    found = look(ns, s3)
    assert [each for each in found if each.word != "ok"] == []
    assert any(f"4 {ACCELERATOR}; the largest step fits" in each.detail for each in found)
    assert any(each.detail == "the clock of S3 agrees with this one" for each in found)
    assert any(
        "trainings run as TrainJobs of TrainingRuntime 'moaa-train-test'" in each.detail
        for each in found
    )


def test_the_pipelines_own_account_sees_what_it_may(ns: Namespace, s3: S3, tmp_path: Path) -> None:
    """The run's own preflight checks all its rights; what it may not look at is no failure."""
    with as_account(ns, "moaa-pipeline", tmp_path) as cluster:
        cluster.inside = True
        found = list(checks.findings(recipe(ns), s3.store, cluster, STAGES, kubeflow=True))
    assert wrong(found) == []
    assert {each.check for each in found if each.word == "?"} <= {
        "pool",
        "quota",
        "secret",
        "training",
    }
    assert len([each for each in found if each.check == "rights" and each.word == "ok"]) == 8


@pytest.mark.parametrize("name", list(SECRETS))
def test_a_missing_secret(ns: Namespace, s3: S3, name: str) -> None:
    ns.kubectl("delete", "secret", name)
    try:
        assert wrong(look(ns, s3)) == [
            ("secret", f"there is no Secret '{name}' in namespace 'pipe-preflight'.")
        ]
    finally:
        ns.apply(SECRETS[name])


def test_a_missing_key(ns: Namespace, s3: S3) -> None:
    assert wrong(look(ns, s3, "runtime.secret_envs=[HF_TOKEN, OTHER]")) == [
        ("secret", "Secret 'moaa-env' lacks OTHER")
    ]


def test_the_wrong_kind_of_pull_secret(ns: Namespace, s3: S3) -> None:
    ((check, detail),) = wrong(look(ns, s3, "runtime.cluster.image_pull_secrets=[moaa-env]"))
    assert (check, "is of type Opaque" in detail) == ("secret", True)


def test_a_missing_deployment(ns: Namespace, s3: S3) -> None:
    ns.kubectl("delete", "deployment", "ensemble-smollm2")
    try:
        detail = "model 'smollm2': no Deployment is labelled moaa.dev/model=smollm2"
        assert wrong(look(ns, s3)) == [("ensemble", detail)]
    finally:
        ns.apply(deployment(recipe(ns)))


def test_a_deployment_that_serves_something_else(ns: Namespace, s3: S3) -> None:
    ((check, detail),) = wrong(look(ns, s3, "models.smollm2.max_model_len=2048"))
    assert check == "ensemble"
    assert "max_model_len is 4096, the recipe says 2048" in detail


def test_a_missing_account_and_its_rights(ns: Namespace, s3: S3) -> None:
    found = wrong(look(ns, s3, "runtime.cluster.service_account=nobody"))
    assert found[0] == (
        "account",
        "there is no ServiceAccount 'nobody' in namespace 'pipe-preflight'.",
    )
    assert {check for check, _ in found[1:]} == {"rights"}
    assert any("may not get, list, watch deployments.apps" in detail for _, detail in found)
    assert any(
        "may not create, get, list, watch, patch, delete trainjobs" in detail for _, detail in found
    )


def test_one_missing_right(ns: Namespace, s3: S3) -> None:
    """Create an account with the pipeline's rights, without one verb."""
    rules = ns.get("role", "moaa-pipeline")["rules"]
    for rule in rules:
        if "trainjobs" in rule["resources"]:
            rule["verbs"].remove("create")
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "less"}}
    ns.apply(
        [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "less"}},
            {**role, "kind": "Role", "rules": rules},
            {
                **role,
                "kind": "RoleBinding",
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "Role",
                    "name": "less",
                },
                "subjects": [{"kind": "ServiceAccount", "name": "less", "namespace": ns.name}],
            },
        ]
    )
    ((check, detail),) = wrong(look(ns, s3, "runtime.cluster.service_account=less"))
    assert check == "rights"
    assert "the account 'less' may not create trainjobs.trainer.kubeflow.org" in detail


def test_a_missing_training_runtime(ns: Namespace, s3: S3) -> None:
    other = f"pools.other={{node_selector: {{{LABEL}: here}}, {POOL}}}"
    found = wrong(look(ns, s3, other, "runtime.launcher.pool=other"))
    assert found == [
        (
            "training",
            "there is no TrainingRuntime 'moaa-train-other' in namespace 'pipe-preflight'.",
        )
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "models.smollm2.replicas=5",
            f"evaluate needs 9 {ACCELERATOR} in pods of 4, 1, 1, 1, 1, 1",
        ),
        (
            "models.smollm2.tensor_parallel=8",
            "tensor_parallel is 8, but a node of pool 'test' has 4 GPUs",
        ),
        (f"pools.test.node_selector={{{LABEL}: elsewhere}}", "0 of 1 nodes can be used"),
        ("pools.test.memory_gib=4000", "GiB"),
    ],
)
def test_pools_that_are_too_small(ns: Namespace, s3: S3, change: str, words: str) -> None:
    found = [detail for check, detail in wrong(look(ns, s3, change)) if check == "pool"]
    assert any(words in detail for detail in found), found


def test_a_quota(ns: Namespace, s3: S3) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}}
    try:
        ns.apply({**quota, "spec": {"hard": {f"requests.{ACCELERATOR}": "1"}}})
        ((check, detail),) = wrong(look(ns, s3))
        assert (check, f"requests.{ACCELERATOR}: 1 left" in detail) == ("quota", True)
        ns.apply({**quota, "spec": {"hard": {"limits.cpu": "1000"}}})
        assert wrong(look(ns, s3)) == []
        ((check, detail),) = wrong(look(ns, s3, kubeflow=True))
        assert (check, "no LimitRange gives defaults" in detail) == ("quota", True)
    finally:
        ns.kubectl("delete", "resourcequota", "small")


def test_a_cluster_that_does_not_answer(ns: Namespace, s3: S3, tmp_path: Path) -> None:
    config = json.loads(run("kubectl", "config", "view", "--raw", "--minify", "-o", "json"))
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    (tmp_path / "config").write_text(json.dumps(config))
    ((check, detail),) = wrong(look(ns, s3, kubeconfig=tmp_path / "config"))
    assert check == "cluster"
    assert "https://127.0.0.1:9 could not be asked" in detail


def test_the_command_says_by_its_exit_status(ns: Namespace, s3: S3) -> None:
    prompts = (
        "prompts={sft: [{source: 'hub:a/b'}], preference: [{source: 'hub:a/c'}], "
        "evaluation: [{source: 'hub:a/d'}]}"
    )
    given = [*SETS, f"runtime.cluster.namespace={ns.name}", f"store.root={s3.root}", prompts]

    def preflight(*sets: str) -> subprocess.CompletedProcess[str]:
        options = [word for each in (*given, *sets) for word in ("--set", each)]
        command = [
            sys.executable,
            "-m",
            "moaa.cli",
            "preflight",
            "pipelines/recipes/demo.yaml",
            *options,
        ]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    fine = preflight()
    assert fine.returncode == 0, fine.stdout + fine.stderr
    bad = preflight("runtime.cluster.s3_secret=nosuch")
    assert bad.returncode == 1
    assert "FAIL  secret: there is no Secret 'nosuch'" in bad.stdout
    assert "--from-literal=AWS_ACCESS_KEY_ID=…" in bad.stdout
    assert any(line.startswith("1 of ") for line in bad.stderr.splitlines())
