"""Real trainings on a real cluster: two pods of the train image under torchrun and DeepSpeed, as
TrainJobs and Indexed Jobs.

They need the image `moaa/train:VERSION-cpu` on the nodes (VARIANT=cpu make images), and Kubeflow
Trainer for all but one.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from moaa.artifacts import Draft, Output
from moaa.errors import TrainError
from moaa.kubernetes.api import Cluster
from moaa.ledger import Ledger
from moaa.recipe import schema
from moaa.train import cluster as launching
from moaa.train import launch, objects
from moaa.train.job import Job
from moaa.train.pod_watch import Timing
from tests.charts.render import PLATFORM
from tests.cluster.charts import install
from tests.cluster.leased import connected, holders, kubeconfig_of
from tests.cluster.s3 import S3, s3
from tests.cluster.tools import Namespace, namespace, needs_cluster, until
from tests.cluster.trainings import (
    IMAGE,
    NUMBERS,
    ROWS,
    VALUES,
    checkpointed,
    failure,
    pods,
    runtime,
    started,
    there,
    train,
)
from tests.support.training import cut_down

ABSENT = "moaa/no-such-image:1"
pytestmark = [needs_cluster, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("train-jobs", **{"pod-security.kubernetes.io/enforce": "restricted"}) as made:
        pools = {"default": {"shmGib": 0.5, "tmpGib": 20}, "tight": {"shmGib": 0.1, "tmpGib": 1}}
        values = {
            "images": {"core": IMAGE, "train": IMAGE},
            "reaper": {"enabled": False},
            "kubeflow": {"enabled": False},
            "admissionPolicy": {"trainImages": [ABSENT]},
            "pools": pools,
            "networkPolicy": {"namespaces": [made.name]},
        }
        install(made, "platform", PLATFORM, values)
        yield made


@pytest.fixture(scope="module")
def store(ns: Namespace) -> Iterator[S3]:
    with s3(ns) as made:
        made.secret(ns)
        yield made


@pytest.fixture(scope="module")
def kubeconfig(ns: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kubeconfig_of(ns, "moaa-pipeline", tmp_path_factory.mktemp("kube"))


@pytest.fixture(scope="module")
def cluster(ns: Namespace, kubeconfig: Path) -> Iterator[Cluster]:
    """Use the account that the platform chart makes for pipelines, with its rights alone."""
    with connected(kubeconfig, ns.name) as found:
        yield found


@pytest.fixture(scope="module")
def base(store: S3, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small real model on S3."""
    folder, uri = Path(cut_down(tmp_path_factory.mktemp("small"))), f"{store.store.root}/base"
    for path in folder.rglob("*"):
        store.store.upload(path, f"{uri}/{path.name}")
    return uri


@pytest.fixture(scope="module")
def data(store: S3) -> str:
    uri = f"{store.store.root}/data"
    with Output(store.store, uri, "test") as out:
        for row in ROWS:
            out.write(row)
        out.commit(Draft(stage="test", name="test", fingerprint="f"))
    return uri


@pytest.fixture
def job(store: S3, base: str, data: str, request: pytest.FixtureRequest) -> Job:
    """A training of its own for each test; its name on the cluster follows from the end of
    `output`."""
    digest = f"{abs(hash((request.node.name, time.time()))):016x}"[:16]
    return Job(
        kind="sft",
        numbers=schema.Sft(**NUMBERS),
        base=base,
        data=data,
        output=f"{store.store.root}/sft/{digest}",
        store=schema.StoreAddress(root=store.store.root),
        device="cpu",
        checkpoint_steps=2,
    )


def test_two_pods_train_as_one_and_the_train_job_is_gone(
    ns: Namespace, cluster: Cluster, store: S3, job: Job
) -> None:
    ledger = Ledger()
    facts = train(job, runtime(ns), store, ledger)
    assert (facts["world_size"], facts["rows"], facts["resumed_from_step"]) == (2, len(ROWS), None)
    assert facts["curve"][-1]["loss"] < facts["curve"][0]["loss"]
    assert not there(ns, "trainjob", job)
    assert not any(event.startswith("trainings") for event in ledger.events)


@pytest.mark.timeout(900)
def test_a_pod_that_is_killed_costs_the_steps_since_the_last_checkpoint(
    ns: Namespace, cluster: Cluster, store: S3, job: Job, kubeconfig: Path
) -> None:
    # Long enough for a checkpoint to be on S3 well before the end, also on a busy machine.
    job = job.model_copy(update={"numbers": schema.Sft(**{**NUMBERS, "epochs": 8})})
    launcher = started(job, runtime(ns), store, kubeconfig)
    until(checkpointed(job, store), "a checkpoint", 300)
    victim = next(
        pod
        for pod in pods(ns, job)
        if pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "1"
    )
    ns.kubectl("delete", "pod", victim["metadata"]["name"], "--force", "--grace-period=0")
    _, said = launcher.communicate(timeout=480)
    print(said)
    assert launcher.returncode == 0
    assert "lost pod" in said
    facts = json.loads(store.store.get(job.result))["facts"]
    assert facts["resumed_from_step"] >= 2


def test_a_launcher_that_was_killed_finds_its_training_at_work(
    ns: Namespace, cluster: Cluster, store: S3, job: Job, kubeconfig: Path
) -> None:
    launcher = started(job, runtime(ns), store, kubeconfig)
    until(lambda: pods(ns, job), "a pod", 60)
    before = {pod["metadata"]["uid"] for pod in pods(ns, job)}
    launcher.kill()
    launcher.communicate()
    ledger = Ledger()
    facts = train(job, runtime(ns), store, ledger)
    assert ledger.events["trainings found at work"] == 1
    assert facts["resumed_from_step"] is None
    assert before
    assert before <= {pod["metadata"]["uid"] for pod in pods(ns, job)}
    assert len(holders(ns, objects.name_of(job), "TrainJob")) == 1, (
        "the killed launcher's lease is left, and with it the reaper ends the TrainJob"
    )


def test_a_launcher_that_is_told_to_end_takes_its_training_with_it(
    ns: Namespace, cluster: Cluster, store: S3, job: Job, kubeconfig: Path
) -> None:
    launcher = started(job, runtime(ns), store, kubeconfig)
    until(lambda: pods(ns, job), "a pod", 60)
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=30)
    assert launcher.returncode == 143
    until(lambda: not there(ns, "trainjob", job), "the end of the TrainJob", 30)
    until(lambda: not pods(ns, job), "the end of its pods", 60)


def test_a_training_that_fails_says_why_and_stays_to_be_looked_at(
    ns: Namespace, cluster: Cluster, store: S3, job: Job
) -> None:
    wrong = job.model_copy(update={"data": f"{store.store.root}/nothing-here"})
    error = failure(wrong, runtime(ns), store)
    assert "nothing-here" in str(error)
    assert any("ended with exit status 1" in line for line in str(error).splitlines()[-5:])
    assert there(ns, "trainjob", job)
    assert holders(ns, objects.name_of(job), "TrainJob") == []
    train(job, runtime(ns), store)  # what failed makes room
    assert not there(ns, "trainjob", job)


def test_out_of_memory_is_said_in_the_last_five_lines(
    ns: Namespace, cluster: Cluster, store: S3, job: Job
) -> None:
    error = failure(job, runtime(ns, pool="tight", nodes=1), store)
    assert type(error) is TrainError
    assert any("OOMKilled" in line for line in str(error).splitlines()[-5:])


def test_an_image_that_is_not_there_is_an_error_that_names_it(
    ns: Namespace, cluster: Cluster, store: S3, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = partial(launching.start, timing=Timing(cannot_start_s=3.0))
    monkeypatch.setitem(launch.LAUNCHERS, "trainer", impatient)
    wanted = runtime(ns)
    wanted = wanted.model_copy(
        update={
            "cluster": wanted.cluster.model_copy(update={"images": schema.Images(train=ABSENT)})
        }
    )
    error = failure(job, wanted, store)
    assert "no-such-image" in str(error)
    assert "ImagePull" in str(error)


def test_a_runtime_that_is_not_there_is_an_error_that_says_who_makes_it(
    ns: Namespace, cluster: Cluster, store: S3, job: Job
) -> None:
    ns.kubectl("delete", "trainingruntime", "moaa-train-tight")
    error = failure(job, runtime(ns, pool="tight", nodes=1), store)
    assert "moaa-train-tight" in str(error)
    assert "platform chart" in str(error)


def test_an_indexed_job_does_the_same_without_trainer(
    ns: Namespace, cluster: Cluster, store: S3, job: Job
) -> None:
    install(
        ns,
        "platform",
        PLATFORM,
        {
            **VALUES,
            "trainer": {"enabled": False},
            "networkPolicy": {"namespaces": [ns.name]},
        },
    )
    facts = train(job, runtime(ns, kind="job"), store)
    assert (facts["world_size"], facts["rows"]) == (2, len(ROWS))
    assert not there(ns, "job", job)
    until(lambda: not there(ns, "service", job), "the end of its Service", 30)
