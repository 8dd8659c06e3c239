"""What `moaa submit` sends to Kubeflow, and what it says if it may not."""

from __future__ import annotations

import hashlib
import json

import pytest

from moaa.pipelines.client import SubmitError
from moaa.pipelines.submit import submit
from moaa.recipe.load import load_text
from moaa.task import Task
from tests.support.kfp_server import KfpServer
from tests.support.memory_store import MemoryStore
from tests.support.submitting import demo

pytestmark = [pytest.mark.xdist_group("kfp"), pytest.mark.usefixtures("no_cluster")]


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


def test_without_a_kubeconfig_that_is_said(
    kfp: KfpServer, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(demo(), kfp.url, "evaluate", wait=True)
    assert capsys.readouterr().out.count("what a pod waits for is not shown") == 1


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
