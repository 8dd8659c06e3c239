"""A submission against a server that speaks the few endpoints of Kubeflow Pipelines it uses; no
real backend."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moaa.kubernetes.kinds import PODS
from moaa.pipelines import submit as module
from moaa.pipelines.client import SubmitError, connect
from moaa.pipelines.outcome import RunFailed
from moaa.pipelines.submit import submit
from moaa.recipe.load import Loaded, load_file, load_text
from moaa.task import Task
from tests.support.kfp_server import KfpServer
from tests.support.kube_server import KubeServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

pytestmark = pytest.mark.xdist_group("kfp")


@pytest.fixture
def kfp(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    for name in ("KFP_TOKEN", "KFP_CA"):
        monkeypatch.delenv(name, raising=False)
    with KfpServer() as server:
        yield server


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No kubeconfig, and none of Kubeflow's own settings of whoever runs this."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none")
    )
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))


def demo(*sets: str) -> Loaded:
    return load_file(DEMO, sets)


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


def test_the_recipe_travels_by_its_address(
    kfp: KfpServer, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = demo(
        "dpo.beta=0.25",
        "generate.mixture.proposers[0].system=Say 😀 and $(HOME) and {{workflow.name}}.",
    )
    run_id = submit(loaded, kfp.url, "evaluate")
    (run,) = kfp.runs
    address = run["runtime_config"]["parameters"]["recipe"]
    assert (
        address
        == f"s3://moaa/demo/recipes/{hashlib.sha256(store.objects[address]).hexdigest()}.yaml"
    )
    given = run["runtime_config"]["parameters"]["overrides"]
    assert given == {"dpo.beta": 0.25}, "Kubeflow would change the other one"
    assert load_text(store.objects[address].decode(), overrides=given).recipe == loaded.recipe
    assert "😀" not in json.dumps(run, ensure_ascii=False)
    assert run["service_account"] == "moaa-pipeline"
    assert run["run_id"] == run_id
    assert kfp.experiments[0]["display_name"] == "moaa"
    out = capsys.readouterr().out
    assert f"{kfp.url}/#/runs/details/{run_id}" in out
    assert f"s3://moaa/demo/runs/{run_id}/report.html" in out


def test_a_stage_reads_the_recipe_at_the_address(
    kfp: KfpServer, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(demo(), kfp.url, "evaluate")
    monkeypatch.setattr("moaa.task.Store", lambda root: store)
    assert (
        Task(kfp.runs[0]["runtime_config"]["parameters"]["recipe"], "r").load().recipe
        == demo().recipe
    )


def test_settings_are_parameters_that_the_ui_shows_and_edits(
    kfp: KfpServer, store: MemoryStore
) -> None:
    """Before, they were hidden in the recipe at an address: Clone had nothing to edit, and Compare
    showed two addresses."""
    loaded = demo("dpo.beta=0.25", "sft.epochs=2")
    submit(loaded, kfp.url, "evaluate")
    (run,) = kfp.runs
    given = run["runtime_config"]["parameters"]
    assert given["overrides"] == {"dpo.beta": 0.25, "sft.epochs": 2}
    assert run["description"] == "dpo.beta=0.25, sft.epochs=2"
    text = store.objects[given["recipe"]].decode()
    assert load_text(text).recipe == demo().recipe
    assert load_text(text, overrides=given["overrides"]).recipe == loaded.recipe


def test_every_task_gets_the_overrides(kfp: KfpServer, store: MemoryStore) -> None:
    submit(demo("dpo.beta=0.25"), kfp.url, "evaluate")
    components = kfp.runs[0]["pipeline_spec"]["pipeline_spec"]["components"]
    dags = [each["dag"] for each in components.values() if "dag" in each]
    tasks = [task for dag in dags for task in dag["tasks"].values() if "componentRef" in task]
    asking = [task for task in tasks if "run_id" in task["inputs"]["parameters"]]
    assert len(asking) == 8
    assert all("overrides" in task["inputs"]["parameters"] for task in asking)


def test_the_same_recipe_is_uploaded_once(kfp: KfpServer, store: MemoryStore) -> None:
    for _ in range(2):
        submit(demo(), kfp.url, "evaluate")
    assert len([uri for uri in store.objects if "/recipes/" in uri]) == 1
    assert len(kfp.experiments) == 1


def test_what_is_sent_is_compiled_from_this_recipe(kfp: KfpServer, store: MemoryStore) -> None:
    submit(demo("runtime.cluster.images.core=registry.example/core:7"), kfp.url, "sft")
    spec = kfp.runs[0]["pipeline_spec"]["pipeline_spec"]
    executors = spec["deploymentSpec"]["executors"]
    assert executors["exec-prompts"]["container"]["image"] == "registry.example/core:7"
    assert set(executors) == {
        "exec-preflight",
        "exec-prompts",
        "exec-generate",
        "exec-sft",
        "exec-report",
    }
    settings = kfp.runs[0]["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"][
        "deploymentSpec"
    ]["executors"]
    assert settings["exec-sft"]["securityContext"] == {"runAsNonRoot": True}


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


def test_without_a_kubeconfig_that_is_said(
    kfp: KfpServer, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(demo(), kfp.url, "evaluate", wait=True)
    assert capsys.readouterr().out.count("what a pod waits for is not shown") == 1


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


def test_a_refusal_is_readable(
    kfp: KfpServer, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.token = "secret-token"
    with pytest.raises(SubmitError, match=r"HTTP 401\): Request header error.*KFP_TOKEN"):
        submit(demo(), kfp.url, "evaluate")
    monkeypatch.setenv("KFP_TOKEN", "secret-token")
    assert submit(demo(), kfp.url, "evaluate")


def test_many_users_need_a_namespace(kfp: KfpServer, store: MemoryStore) -> None:
    kfp.multi_user = True
    with pytest.raises(SubmitError, match="--namespace"):
        submit(demo(), kfp.url, "evaluate")
    submit(demo(), kfp.url, "evaluate", namespace="alice")
    assert kfp.experiments[0]["namespace"] == "alice"


def test_a_wrong_host_is_readable(store: MemoryStore) -> None:
    with pytest.raises(
        SubmitError, match=r"Kubeflow at http://127\.0\.0\.1:9 does not answer.*port-forward"
    ):
        submit(demo(), "http://127.0.0.1:9", "evaluate")


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
