"""What crashed runs leave on a real cluster is ended when its lease has run out, and not before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa.kubernetes import names, reaper
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.leases import LEASE_S
from tests.charts.render import PLATFORM
from tests.cluster.charts import fake_engine, install
from tests.cluster.leased import (
    IMAGE,
    connected,
    engine,
    kubeconfig_of,
    leases,
    pods,
    replicas,
)
from tests.cluster.test_engines import holding
from tests.cluster.tools import Namespace, namespace, needs_cluster, tried, until
from tests.support.paths import ROOT

pytestmark = [needs_cluster, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("engines-reaper") as made:
        fake_engine(made)
        install(
            made,
            "platform",
            PLATFORM,
            {"images": {"core": IMAGE, "train": IMAGE}, "reaper": {"schedule": "0 0 1 1 *"}},
        )
        yield made


def reap(
    ns: Namespace, folder: Path, *options: str, account: str = "moaa-reaper"
) -> subprocess.CompletedProcess[str]:
    """Run the reaper as the platform chart's CronJob does, with that account's rights alone."""
    environment = os.environ | {"KUBECONFIG": str(kubeconfig_of(ns, account, folder))}
    command = [sys.executable, "-m", "moaa.kubernetes.reaper", "--namespace", ns.name, *options]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_killed_run_s_engine_is_scaled_down_when_its_lease_is_over(
    ns: Namespace, tmp_path: Path
) -> None:
    engine(ns, "orphan")
    with holding("orphan", ns, kubeconfig_of(ns, "moaa-pipeline", tmp_path)) as child:
        child.kill()
    ((holder, end),) = leases(ns, "orphan").items()
    assert time.time() < end <= time.time() + LEASE_S
    kept = reap(ns, tmp_path)
    assert (kept.returncode, replicas(ns, "orphan")) == (0, 1), kept
    over = json.dumps({holder: time.time() - 1})
    ns.kubectl("annotate", "--overwrite", "deployment", "moaa-orphan", f"{names.LEASES}={over}")
    said = f"Deployment moaa-orphan {{}}scaled from 1 to 0: no live lease (released: {holder})\n"
    assert reap(ns, tmp_path, "--dry-run").stderr == said.format("would be ")
    assert replicas(ns, "orphan") == 1
    done = reap(ns, tmp_path)
    assert (done.returncode, done.stderr) == (0, said.format(""))
    assert (replicas(ns, "orphan"), leases(ns, "orphan")) == (0, {})
    until(lambda: not pods(ns, "orphan"), "the end of the pod", 30)
    assert reap(ns, tmp_path).stderr == f"nothing to scale down or delete in namespace {ns.name}\n"


def work(kind: str, name: str, lease_ends: float | None) -> dict[str, Any]:
    """A Job or TrainJob that sleeps."""
    annotations = {} if lease_ends is None else {names.LEASES: f'{{"run-1/sft/x": {lease_ends}}}'}
    metadata = {
        "name": name,
        "labels": names.work_labels("run-1", "sft"),
        "annotations": annotations,
    }
    command = ["sleep", "300"]
    if kind == "TrainJob":
        return {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": kind,
            "metadata": metadata,
            "spec": {
                "runtimeRef": {
                    "name": names.runtime(),
                    "kind": "TrainingRuntime",
                    "apiGroup": "trainer.kubeflow.org",
                },
                "trainer": {"image": IMAGE, "command": command, "numNodes": 1, "numProcPerNode": 1},
            },
        }
    container = {"name": "c", "image": IMAGE, "command": command}
    pod = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
    return {
        "apiVersion": "batch/v1",
        "kind": kind,
        "metadata": metadata,
        "spec": {"template": {"spec": pod}},
    }


def there(ns: Namespace, kind: str) -> set[str]:
    return {each["metadata"]["name"] for each in ns.items(kind, f"{names.RUN}=run-1")}


@pytest.mark.parametrize(("kind", "plural"), [("Job", "jobs"), ("TrainJob", "trainjobs")])
def test_trainings_go_with_their_pods(
    ns: Namespace, tmp_path: Path, kind: str, plural: str
) -> None:
    now = time.time()
    ns.apply(
        [work(kind, "over", now - 1), work(kind, "live", now + 600), work(kind, "never", None)]
    )
    until(lambda: len(ns.items("pods", "batch.kubernetes.io/job-name")) >= 3, "their pods")
    done = reap(ns, tmp_path)
    assert (done.returncode, done.stderr) == (
        0,
        f"{kind} over deleted: no live lease (last: run-1/sft/x)\n",
    )
    until(lambda: there(ns, plural) == {"live", "never"}, "its end", 30)
    with connected(os.environ["KUBECONFIG"], ns.name) as cluster:
        assert list(reaper.end_run(cluster, "run-1")) == [
            f"{kind} live deleted: no live lease (last: run-1/sft/x)"
        ]
    until(lambda: there(ns, plural) == {"never"}, "the end of the run's training", 30)
    ns.kubectl("delete", plural, "never", "--wait")
    until(lambda: not ns.items("pods", "batch.kubernetes.io/job-name"), "the end of all pods", 180)


def test_a_reaper_without_rights_says_which(ns: Namespace, tmp_path: Path) -> None:
    refused = reap(ns, tmp_path, account="default")
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        f"reaper: the account 'system:serviceaccount:{ns.name}:default' may not list "
        "deployments.apps"
    )
    assert "Traceback" not in refused.stderr


def test_the_reaper_s_account_may_only_reap(ns: Namespace, tmp_path: Path) -> None:
    account = f"--as=system:serviceaccount:{ns.name}:moaa-reaper"
    for verb, what in (
        ("create", "deployments.apps"),
        ("delete", "deployments.apps"),
        ("delete", "pods"),
        ("get", "secrets"),
    ):
        assert (
            tried("kubectl", "auth", "can-i", verb, what, "-n", ns.name, account).stdout.strip()
            == "no"
        ), (verb, what)


def test_the_cluster_is_found_by_its_kubeconfig(ns: Namespace) -> None:
    with connected(os.environ["KUBECONFIG"], ns.name) as cluster:
        assert isinstance(cluster, Cluster)
        assert (cluster.namespace, cluster.inside) == (ns.name, False)
