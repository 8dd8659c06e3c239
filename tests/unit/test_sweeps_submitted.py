"""A sweep on a cluster: each variant a run, started as `moaa submit` and `--in-cluster` do it."""

from __future__ import annotations

from pathlib import Path

import pytest

from moaa.commands import sweep_run
from moaa.commands.pipeline import Kubeflow
from moaa.errors import RecipeError
from moaa.pipelines import incluster
from moaa.recipe.load import load_text
from tests.support.kfp_server import KfpServer
from tests.support.kube_server import KubeServer
from tests.support.memory_store import MemoryStore

pytestmark = pytest.mark.xdist_group("kfp")
SWEEP = """
name: small
recipe: demo
until: label
set: [runtime.engines.kind=kubernetes, runtime.launcher.kind=trainer, plan.gpu_hour_usd=3600]
variants:
  mixture: {}
  random: {set: [label.labeller=random]}
"""


@pytest.fixture
def file(tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    return path


def to(kfp: KfpServer) -> Kubeflow:
    return Kubeflow(kfp.url, "moaa", None, wait=False)


def labellers(kfp: KfpServer, store: MemoryStore) -> list[str]:
    """Of each submitted run, in order."""
    given = [run["runtime_config"]["parameters"] for run in kfp.runs]
    return [
        load_text(store.objects[each["recipe"]].decode(), overrides=each["overrides"])
        .recipe.label.labeller
        for each in given
    ]  # fmt: skip


def test_each_variant_is_a_run_of_kubeflow(
    file: Path, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpServer() as kfp:
        sweep_run.submit(file, None, to(kfp), None)
        assert labellers(kfp, store) == ["mixture", "random"]
        # The comparison reads the records of these runs.
        for run, status in zip(kfp.runs, ("failed", "running"), strict=True):
            text = f'{{"run_id": "{run["run_id"]}", "stage": "prompts", "status": "{status}"'
            text += ', "started": "2026-01-01T00:00:00+00:00", "seconds": 1, "ledger": {}}'
            store.objects[f"{store.root}/runs/{run['run_id']}/prompts.json"] = text.encode()
    capsys.readouterr()
    sweep_run.compare(file)
    first, second = capsys.readouterr().out.splitlines()[3:5]
    assert first.split()[:2] == ["mixture", "failed"]
    assert second.split()[0] == "random"


def test_the_same_command_starts_only_what_has_not_succeeded(
    file: Path, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpServer() as kfp:
        sweep_run.submit(file, None, to(kfp), None)
        kfp.states = ["SUCCEEDED", "FAILED"]
        sweep_run.submit(file, None, to(kfp), None)
        assert labellers(kfp, store) == ["mixture", "random", "random"]
        kfp.states, kfp.looks = ["RUNNING"], 0
        sweep_run.submit(file, None, to(kfp), None)
        assert len(kfp.runs) == 3
        file.write_text(SWEEP.replace("mixture: {}", "mixture: {set: [sft.epochs=1]}"))
        sweep_run.submit(file, None, to(kfp), None)
        assert labellers(kfp, store)[3:] == ["mixture"], "its recipe is another one"
        del kfp.runs[1:]
        sweep_run.submit(file, None, to(kfp), None)  # Kubeflow's history was deleted
        assert labellers(kfp, store)[1:] == ["mixture", "random"]
    said = capsys.readouterr().out
    assert "is done" in said
    assert "is running" in said


def test_each_variant_is_a_job_of_its_own(
    file: Path, kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incluster, "connect", lambda *_, **__: kube.cluster())
    sweep_run.submit(file, None, None, "team")
    names = [name for kind, name in kube.objects if kind == "jobs"]
    assert [name[:13] for name in names] == ["small-mixture", "small-random-"]
    sweep_run.submit(file, None, None, "team")  # both go on
    assert len([kind for kind, _ in kube.objects if kind == "jobs"]) == 2
    failed = kube.objects["jobs", names[0]]
    failed["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    del kube.objects["jobs", names[1]]  # its time was over: nobody knows how it ended
    sweep_run.submit(file, None, None, "team")
    assert len([kind for kind, _ in kube.objects if kind == "jobs"]) == 3


def test_what_does_not_fit_the_budget_is_not_started(file: Path, store: MemoryStore) -> None:
    with KfpServer() as kfp:
        sweep_run.submit(file, 0, to(kfp), None)
        assert kfp.runs == []


def test_a_mistake_in_one_variant_starts_none(file: Path) -> None:
    file.write_text(SWEEP.replace("labeller=random", "labeller=nobody"))
    with KfpServer() as kfp:
        with pytest.raises(RecipeError, match="variant 'random'"):
            sweep_run.submit(file, None, to(kfp), None)
        assert kfp.runs == []
