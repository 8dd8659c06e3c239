"""What `moaa submit --wait` shows of a run, and how it ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from moaa.kubernetes.kinds import PODS
from moaa.pipelines import submit as module
from moaa.pipelines.client import SubmitError, connect
from moaa.pipelines.outcome import RunFailed
from moaa.pipelines.submit import submit
from tests.support.kfp_server import KfpServer
from tests.support.kube_server import KubeServer
from tests.support.memory_store import MemoryStore
from tests.support.submitting import demo

pytestmark = [pytest.mark.xdist_group("kfp"), pytest.mark.usefixtures("no_cluster")]


def record(store: MemoryStore, run_id: str, stage: str, status: str, **more: Any) -> None:
    found = {
        "run_id": run_id,
        "stage": stage,
        "status": status,
        "started": f"2026-01-01T00:00:{len(store.objects):02}",
        "ended": None,
        "seconds": 75.0,
        "manifest": None,
        "error": None,
        "ledger": {"rows": {"in": 24, "kept": 23}},
        **more,
    }
    store.objects[f"{store.root}/runs/{run_id}/{stage}.json"] = json.dumps(found).encode()


def story(kfp: KfpServer, *steps: Callable[[str], object], end: str = "") -> None:
    """Do these to the run, one after the other, each when it was looked at twice since the last
    one; then it ends so."""
    kfp.states = ["RUNNING"]

    def tell() -> None:
        for step in (*steps, lambda run: setattr(kfp, "states", [end or "RUNNING"])):
            looks, deadline = kfp.looks, time.monotonic() + 20
            while kfp.looks < looks + 2 and time.monotonic() < deadline:
                time.sleep(0.005)
            step(kfp.runs[0]["run_id"])

    threading.Thread(target=tell, daemon=True).start()


def test_waiting_prints_each_change_once(
    kfp: KfpServer, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    story(
        kfp,
        lambda run: record(store, run, "prompts", "reused"),
        lambda run: record(store, run, "generate", "running"),
        lambda run: record(store, run, "generate", "done"),
        end="SUCCEEDED",
    )
    submit(demo(), kfp.url, "evaluate", wait=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("prompts", "generate"))] == [
        "prompts    reused",
        "generate   running",
        "generate   done       1 min 15 s   24 in  23 kept",
    ]
    assert any(line.startswith("Kubeflow: SUCCEEDED") for line in lines)


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_only_success_is_success(
    kfp: KfpServer, store: MemoryStore, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp.states = ["RUNNING", state]
    with pytest.raises(
        RunFailed,
        match=rf"the run is {state}, but no stage recorded an error.*describe pod -n kubeflow -l ",
    ):
        submit(demo(), kfp.url, "evaluate", wait=True)
    assert f"Kubeflow: {state}   there is no report" in capsys.readouterr().out


def test_the_failed_stages_own_error_comes_last(kfp: KfpServer, store: MemoryStore) -> None:
    error = {"type": "TrainError", "message": "OOMKilled: rank 1 of sft\nlast line of its log"}
    story(
        kfp,
        lambda run: record(store, run, "prompts", "done"),
        lambda run: record(store, run, "sft", "failed", error=error),
        end="FAILED",
    )
    with pytest.raises(RunFailed) as caught:
        submit(demo(), kfp.url, "evaluate", wait=True)
    assert str(caught.value) == "sft failed: OOMKilled: rank 1 of sft\nlast line of its log"


def test_a_stage_whose_pod_was_taken_away_says_so_and_goes_on(
    kfp: KfpServer, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubeflow starts another pod; what the first one recorded is not the end."""
    stopped = {"type": "Terminated", "message": "the stage was stopped before it was done"}
    story(
        kfp,
        lambda run: record(store, run, "generate", "failed", error=stopped),
        lambda run: record(store, run, "generate", "running"),
        lambda run: record(store, run, "generate", "done"),
        end="SUCCEEDED",
    )
    submit(demo(), kfp.url, "evaluate", wait=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("generate")]
    assert lines[0] == "generate   terminated 1 min 15 s   the stage was stopped before it was done"
    assert lines[1] == "generate   running"


def test_a_bug_shows_its_traceback(kfp: KfpServer, store: MemoryStore) -> None:
    error = {
        "type": "KeyError",
        "message": "'x'",
        "traceback": "Traceback (most recent call last):\n  …\nKeyError: 'x'",
    }
    story(kfp, lambda run: record(store, run, "label", "failed", error=error), end="FAILED")
    with pytest.raises(RunFailed, match=r"^Traceback[\s\S]*label failed: 'x'$"):
        submit(demo(), kfp.url, "evaluate", wait=True)


def test_a_killed_stage_is_named(kfp: KfpServer, store: MemoryStore) -> None:
    story(kfp, lambda run: record(store, run, "dpo", "running"), end="FAILED")
    with pytest.raises(RunFailed, match="dpo failed: it stopped without an error"):
        submit(demo(), kfp.url, "evaluate", wait=True)


def test_a_backend_that_is_restarted_is_waited_for(kfp: KfpServer, store: MemoryStore) -> None:
    story(kfp, lambda run: setattr(kfp, "failing", 5), end="SUCCEEDED")
    submit(demo(), kfp.url, "evaluate", wait=True)
    assert kfp.failing == 0


def test_a_backend_that_is_gone_is_not_waited_for_without_end(
    kfp: KfpServer, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    story(kfp, lambda run: setattr(kfp, "failing", 10**6))
    with pytest.raises(
        SubmitError, match="The run continues; only this terminal stopped watching: http"
    ):
        submit(demo(), kfp.url, "evaluate", wait=True)


def test_what_pods_wait_for_is_said_once_and_again_when_it_changes(
    kfp: KfpServer, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp.states = ["RUNNING"] * 6 + ["SUCCEEDED"]
    pulled = [{"sample": f"image is pulled, for {seconds} s"} for seconds in (1, 6)]
    said = iter([{"sample": "0/6 nodes have GPUs"}] * 3 + pulled + [{}])
    run_id = submit(demo(), kfp.url, "evaluate")
    module.follow(connect(kfp.url, None), kfp.url, run_id, store, lambda: next(said))
    lines = [line for line in capsys.readouterr().out.splitlines() if "waits" in line]
    assert lines == [
        "sample     waits: 0/6 nodes have GPUs",
        "sample     waits: image is pulled, for 1 s",
    ]


def pod(name: str, phase: str, run_id: str, **labels: str) -> dict[str, Any]:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "message": "0/6 nodes are available: 6 Insufficient nvidia.com/gpu.",
    }
    metadata = {
        "name": name,
        "labels": {"pipeline/runid": run_id, **labels},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase, "conditions": [condition]}}


def test_what_pods_wait_for_is_read_from_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    with KubeServer() as kube:
        monkeypatch.setattr("moaa.kubernetes.api.Cluster.connect", lambda namespace: kube.cluster())
        kube.put(PODS, pod("sample-1", "Pending", "r1", **{"moaa.dev/stage": "sample"}))
        kube.put(PODS, pod("driver-1", "Pending", "r1"))
        kube.put(PODS, pod("label-1", "Running", "r1", **{"moaa.dev/stage": "label"}))
        kube.put(PODS, pod("other", "Pending", "r2", **{"moaa.dev/stage": "dpo"}))
        young = pod("prompts-1", "Pending", "r1")
        young["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
        kube.put(PODS, young)
        look = module.waiting("r1", "kubeflow")
        why = "cannot be scheduled: 0/6 nodes are available: 6 Insufficient nvidia.com/gpu."
        assert look() == {"sample": why, "driver-1": why}


def test_a_missing_right_to_look_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with KubeServer() as kube:
        monkeypatch.setattr("moaa.kubernetes.api.Cluster.connect", lambda namespace: kube.cluster())
        kube.fail(
            403, 'pods is forbidden: User "alice" cannot list resource "pods" in API group ""'
        )
        look = module.waiting("r1", "kubeflow")
        assert (look(), look()) == ({}, {})
        assert capsys.readouterr().out.count("'alice' may not list pods") == 1
        assert kube.count("GET") == 1


def test_an_interrupted_wait_leaves_the_run(
    kfp: KfpServer,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "follow", interrupted)
    with pytest.raises(SystemExit) as caught:
        submit(demo(), kfp.url, "evaluate", wait=True)
    assert caught.value.code == 130
    assert (
        f"only this terminal stopped watching: {kfp.url}/#/runs/details/" in capsys.readouterr().out
    )


@pytest.mark.parametrize(("named", "watched"), [(None, "kubeflow"), ("alice", "alice")])
def test_pods_are_watched_where_kubeflow_has_them_wherever_the_engines_are(
    kfp: KfpServer,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    named: str | None,
    watched: str,
) -> None:
    looked: list[str] = []

    def waiting(run_id: str, namespace: str) -> Callable[[], dict[str, str]]:
        looked.append(namespace)
        return dict

    monkeypatch.setattr(module, "waiting", waiting)
    submit(demo("runtime.cluster.namespace=moaa"), kfp.url, "evaluate", namespace=named, wait=True)
    assert looked == [watched]


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("moaa-align-k6m92.entrypoint.generate-driver", "driver of generate"),
        ("moaa-align-k6m92.entrypoint", ""),
        ("", ""),
    ],
)
def test_kubeflow_s_own_pods_have_short_names(node: str, name: str) -> None:
    """Before, a waiting driver was named moaa-align-k6m92-system-container-driver-2312646792."""
    assert module._driver({"annotations": {"workflows.argoproj.io/node-name": node}}) == name
    assert module._driver({}) == ""
