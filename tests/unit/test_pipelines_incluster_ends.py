"""Runs in a cluster that fail, are interrupted, or are stopped."""

from __future__ import annotations

import json

import pytest

from moaa.errors import ClusterError, StoreError
from moaa.kubernetes import names
from moaa.kubernetes.kinds import DEPLOYMENTS, EVENTS, JOBS, PODS, TRAIN_JOBS
from moaa.pipelines import incluster
from moaa.pipelines.outcome import RunFailed
from moaa.pipelines.runner_job import of_run
from tests.support.fake_ensemble import deployment
from tests.support.incluster import Said, after, background, demo, ended, name_of, running
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import hold
from tests.support.memory_store import MemoryStore

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("runs_on_kube")]


@pytest.mark.parametrize("whole", [True, False], ids=["report", "no report"])
def test_the_failed_stages_own_error_comes_last(
    kube: KubeServer, store: MemoryStore, whole: bool
) -> None:
    def record(run_id: str) -> None:
        error = {"type": "TrainError", "message": "OOMKilled: rank 1"}
        found = {"stage": "sft", "status": "failed", "started": "2026", "error": error}
        if whole:
            store.put(f"{store.root}/runs/{run_id}/report.html", b"")
        store.put(f"{store.root}/runs/{run_id}/sft.json", json.dumps(found).encode())

    background(
        kube,
        running(kube, "sft: starting"),
        record,
        ended(kube, "Failed", "exit code 1 matches rule 0"),
    )
    with pytest.raises(RunFailed, match=r"^sft failed: OOMKilled: rank 1$"):
        incluster.start(demo(), of_run("evaluate"))


def test_an_error_that_the_log_showed_is_not_shown_again(
    kube: KubeServer, store: MemoryStore, said: Said
) -> None:
    """Before, each failed run in the cluster showed its error twice."""

    def record(run_id: str) -> None:
        error = {"type": "TrainError", "message": "no disk\n  on rank 1"}
        found = {"stage": "sft", "status": "failed", "started": "2026", "error": error}
        store.put(f"{store.root}/runs/{run_id}/sft.json", json.dumps(found).encode())

    background(
        kube,
        record,
        running(kube, "sft failed: no disk", "  on rank 1"),
        after(lambda: "on rank 1" in said()),
        ended(kube, "Failed", "exit code 1 matches rule 0"),
    )
    with pytest.raises(RunFailed, match=r" failed; the log above ends with the error$"):
        incluster.start(demo(), of_run("evaluate"))
    assert said().count("no disk") == 1


def test_a_store_that_only_the_cluster_reaches(
    kube: KubeServer, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise StoreError("cannot connect to http://minio.internal:9000.")

    monkeypatch.setattr(store, "download", unreachable)
    steps = (
        running(kube, "a", "b", "c", "d", "e", "sft failed: no disk"),
        after(lambda: "no disk" in said()),
    )
    background(kube, *steps, ended(kube, "Failed", "exit code 1 matches rule 0"))
    with pytest.raises(RunFailed) as caught:
        incluster.start(demo(), of_run("evaluate"))
    assert str(caught.value) == "exit code 1 matches rule 0"
    assert said().count("sft failed: no disk") == 1
    assert "not copied here: cannot connect to http://minio.internal:9000" in said()


def test_no_pod_at_all_is_explained(kube: KubeServer, said: Said) -> None:
    def event(run_id: str) -> None:
        message = (
            'pods "x" is forbidden: error looking up service account team/moaa-pipeline: not found'
        )
        about = {"involvedObject": {"name": run_id}, "reason": "FailedCreate", "message": message}
        kube.put(EVENTS, {"metadata": {"name": "e"}, **about})

    background(
        kube,
        event,
        after(lambda: "moaa-pipeline: not found" in said()),
        ended(kube, "Failed", "deadline"),
    )
    with pytest.raises(RunFailed, match=r"^deadline"):
        incluster.start(demo(), of_run("evaluate"))


def test_an_interrupted_follower_leaves_the_run(
    kube: KubeServer, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(incluster._Logs, "follow", interrupt)
    with pytest.raises(SystemExit) as caught:
        incluster.start(demo(), of_run("evaluate"))
    assert caught.value.code == 130
    run_id = name_of(kube)
    assert kube.find(JOBS, run_id)
    assert f"moaa run --follow {run_id} --namespace team" in said()
    assert f"moaa run --stop {run_id} --namespace team" in said()
    assert kube.count("DELETE") == 0


def test_stopping_gives_back_what_the_run_holds(
    kube: KubeServer, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    background(kube, running(kube, "a"), ended(kube))
    incluster.start(demo(), of_run("evaluate"))
    run_id = name_of(kube)
    for name in ("a", "b"):
        kube.put(DEPLOYMENTS, deployment(name, name, replicas=1))
        hold(kube, DEPLOYMENTS, name, f"{run_id}/generate/ab")
    hold(kube, DEPLOYMENTS, "b", "other/label/cd")
    labels = names.work_labels(run_id, "sft")
    kube.put(TRAIN_JOBS, {"metadata": {"name": "moaa-sft-1", "labels": labels}, "spec": {}})
    hold(kube, TRAIN_JOBS, "moaa-sft-1", f"{run_id}/sft/ef")
    kube.remove(PODS, f"{run_id}-1")
    incluster.stop(run_id, kube.cluster())
    assert ("jobs", run_id) not in kube.objects
    assert ("trainjobs", "moaa-sft-1") not in kube.objects
    assert kube.find(DEPLOYMENTS, "a")["spec"]["replicas"] == 0
    assert kube.find(DEPLOYMENTS, "b")["spec"]["replicas"] == 1
    assert f"stopped {run_id}" in said()


def test_what_is_no_run_is_said(kube: KubeServer) -> None:
    with pytest.raises(RunFailed, match="there is no run 'nosuch' in namespace 'team'"):
        incluster.follow("nosuch", kube.cluster())
    kube.put(JOBS, {"metadata": {"name": "other"}, "spec": {"template": {"metadata": {}}}})
    with pytest.raises(RunFailed, match="not a run of ours"):
        incluster.stop("other", kube.cluster())
    assert kube.count("DELETE") == 0


def test_a_missing_right_is_said(kube: KubeServer) -> None:
    kube.fail(
        403,
        'jobs.batch is forbidden: User "alice" cannot create resource "jobs" in API group "batch"',
    )
    with pytest.raises(ClusterError, match=r"'alice' may not create jobs\.batch"):
        incluster.start(demo(), of_run("evaluate"))
