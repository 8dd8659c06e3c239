"""What crashed runs leave on a real cluster is ended when its lease has run out, and not before."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa.kubernetes import names, reaper
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS, JOBS, TRAIN_JOBS, Kind
from moaa.kubernetes.leases import LEASE_S, Lease, Observer
from moaa.kubernetes.reaper import Reaper
from tests.cluster.charts import fake_engine, without_reaper
from tests.cluster.leased import (
    IMAGE,
    as_account,
    connected,
    engine,
    hold,
    holders,
    kubeconfig_of,
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
        without_reaper(made, {"images": {"core": IMAGE, "train": IMAGE}})
        yield made


def command(ns: Namespace, folder: Path, *options: str, account: str) -> dict[str, Any]:
    """As the platform chart's pod does it, with that account's rights and no others."""
    environment = os.environ | {"KUBECONFIG": str(kubeconfig_of(ns, account, folder))}
    line = [sys.executable, "-m", "moaa.kubernetes.reaper", "--namespace", ns.name, *options]
    return {"args": line, "env": environment, "cwd": ROOT, "text": True}


class Watching:
    """A reaper with its account's rights, for which time goes twenty times as fast."""

    def __init__(self, cluster: Cluster, *, dry_run: bool = False) -> None:
        self._reaper = Reaper(cluster, Observer(self.now), dry_run=dry_run)

    @staticmethod
    def now() -> float:
        return time.monotonic() * 20

    def watches(self, for_s: float, renew: Callable[[], object] = lambda: None) -> list[str]:
        """Look for so long, as it seems to the reaper; `renew` is called before each look."""
        until_s, said = self.now() + for_s, list[str]()
        while self.now() < until_s:
            renew()
            said += self._reaper.look()
            time.sleep(0.1)
        return said


@pytest.fixture
def reaping(ns: Namespace, tmp_path: Path) -> Iterator[Cluster]:
    with as_account(ns, "moaa-reaper", tmp_path) as cluster:
        yield cluster


@pytest.mark.timeout(400)
def test_of_two_holders_the_killed_one_s_engine_goes_and_the_other_s_stays(
    ns: Namespace, tmp_path: Path
) -> None:
    """In real time, with the command that the chart runs."""
    engine(ns, "orphan")
    engine(ns, "alive")
    file = kubeconfig_of(ns, "moaa-pipeline", tmp_path)
    with holding("alive", ns, file) as alive, holding("orphan", ns, file) as orphan:
        orphan.kill()
        (holder,) = holders(ns, "moaa-orphan")
        begun = time.monotonic()
        done = subprocess.run(
            **command(ns, tmp_path, "--once", account="moaa-reaper"),
            capture_output=True,
            timeout=LEASE_S + 60,
            check=False,
        )
        print(f"the reaper watched for {time.monotonic() - begun:.0f} s")
        assert done.returncode == 0
        assert done.stderr == (
            f"watches the leases of namespace {ns.name}\n"
            f"Deployment moaa-orphan scaled from 1 to 0: no live lease (last: {holder})\n"
        )
        assert (replicas(ns, "orphan"), holders(ns, "moaa-orphan")) == (0, [])
        assert (replicas(ns, "alive"), len(holders(ns, "moaa-alive"))) == (1, 1)
        alive.terminate()
        alive.wait(30)
    assert (replicas(ns, "alive"), holders(ns, "moaa-alive")) == (0, [])
    until(lambda: not pods(ns, "orphan"), "the end of the pod", 30)


def test_a_reaper_in_a_dry_run_only_says(ns: Namespace, reaping: Cluster) -> None:
    engine(ns, "dry")
    ns.kubectl("scale", "deployment", "moaa-dry", "--replicas=1")
    hold(ns, "moaa-dry", "run-1/sft/x")
    said = Watching(reaping, dry_run=True).watches(150)
    assert (
        "Deployment moaa-dry would be scaled from 1 to 0: no live lease (last: run-1/sft/x)" in said
    )
    assert (replicas(ns, "dry"), holders(ns, "moaa-dry")) == (1, ["run-1/sft/x"])
    with connected(os.environ["KUBECONFIG"], ns.name) as cluster:
        assert list(reaper.end_run(cluster, "run-1")) == [
            "Deployment moaa-dry scaled from 1 to 0 (released: run-1/sft/x)"
        ]


def test_an_engine_that_two_share_stays_when_one_of_them_dies(
    ns: Namespace, reaping: Cluster
) -> None:
    engine(ns, "two")
    ns.kubectl("scale", "deployment", "moaa-two", "--replicas=1")
    hold(ns, "moaa-two", "dead/sft/x")
    with connected(os.environ["KUBECONFIG"], ns.name) as cluster:
        alive = Lease(cluster, DEPLOYMENTS, "moaa-two", "alive/sft/y")
        said = Watching(reaping).watches(300, renew=alive.renew)
        assert said == ["Deployment moaa-two: lease of dead/sft/x removed, not renewed"]
        assert (replicas(ns, "two"), holders(ns, "moaa-two")) == (1, ["alive/sft/y"])
        alive.release()
    assert Watching(reaping).watches(100) == [], "nobody holds it, and not for a whole period yet"
    ns.kubectl("scale", "deployment", "moaa-two", "--replicas=0")


def work(kind: str, name: str) -> dict[str, Any]:
    """A Job or TrainJob that sleeps."""
    labels = names.work_labels("run-1", "sft") | {names.TRAINING: name}
    metadata = {"name": name, "labels": labels}
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


@pytest.mark.parametrize("kind", [JOBS, TRAIN_JOBS], ids=lambda kind: kind.name)
def test_trainings_go_with_their_pods(ns: Namespace, reaping: Cluster, kind: Kind) -> None:
    runner = work(kind.name, "runner")
    del runner["metadata"]["labels"][names.TRAINING]
    ns.apply([work(kind.name, "over"), work(kind.name, "live"), runner])
    until(lambda: len(ns.items("pods", "batch.kubernetes.io/job-name")) >= 3, "their pods")
    hold(ns, "over", "run-1/sft/x", kind)
    with connected(os.environ["KUBECONFIG"], ns.name) as cluster:
        lease = Lease(cluster, kind, "live", "run-1/sft/y")
        said = Watching(reaping).watches(200, renew=lease.renew)
        assert said == [f"{kind.name} over deleted: no live lease (last: run-1/sft/x)"]
        until(lambda: there(ns, kind.plural) == {"live", "runner"}, "its end", 30)
        assert list(reaper.end_run(cluster, "run-1")) == [
            f"{kind.name} live deleted (released: run-1/sft/y)"
        ]
    until(lambda: there(ns, kind.plural) == {"runner"}, "the end of the run's training", 30)
    ns.kubectl("delete", kind.plural, "runner", "--wait")
    until(lambda: not ns.items("pods", "batch.kubernetes.io/job-name"), "the end of all pods", 180)


def test_a_reaper_without_rights_says_which_and_goes_on(ns: Namespace, tmp_path: Path) -> None:
    started = subprocess.Popen(
        **command(ns, tmp_path, account="default"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert started.stderr is not None
    assert started.stderr.readline().startswith("watches the leases")
    assert started.stderr.readline().startswith(
        f"reaper: the account 'system:serviceaccount:{ns.name}:default' may not list "
        "leases.coordination.k8s.io"
    )
    time.sleep(7)
    assert started.poll() is None
    started.terminate()
    _, rest = started.communicate(timeout=10)
    assert (started.returncode, rest) == (0, "")


def test_the_reaper_s_account_may_only_reap(ns: Namespace, tmp_path: Path) -> None:
    account = f"--as=system:serviceaccount:{ns.name}:moaa-reaper"
    for verb, what in (
        ("create", "deployments.apps"),
        ("patch", "deployments.apps"),
        ("delete", "deployments.apps"),
        ("patch", "leases.coordination.k8s.io"),
        ("patch", "trainjobs.trainer.kubeflow.org"),
        ("patch", "jobs.batch"),
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
