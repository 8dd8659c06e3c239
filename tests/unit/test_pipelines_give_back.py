"""The exit task gives back what a run holds on the cluster, makes the report, and depends on
nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from moaa.attempt import recorded
from moaa.errors import ClusterError, MoaaError
from moaa.kubernetes import api
from moaa.kubernetes.kinds import DEPLOYMENTS
from moaa.recipe.load import load_file
from moaa.stages import report
from moaa.stages.table import GENERATE
from moaa.task import Task
from tests.support.fake_ensemble import deployment
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import hold
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

RUN = "run-1"


@pytest.fixture
def kube(kube: KubeServer, monkeypatch: pytest.MonkeyPatch) -> KubeServer:
    monkeypatch.setattr(api.Cluster, "connect", lambda *_: kube.cluster())
    return kube


def recipe(*sets: str) -> str:
    return load_file(DEMO, sets).text


def leased(kube: KubeServer, *holders: str) -> None:
    kube.put(DEPLOYMENTS, deployment("moaa-smollm2", "smollm2", replicas=1))
    hold(kube, DEPLOYMENTS, "moaa-smollm2", *holders)


@pytest.mark.parametrize(
    "kinds", [["runtime.engines.kind=kubernetes"], ["runtime.launcher.kind=job"]]
)
def test_leases_are_released_and_the_report_is_made(
    kube: KubeServer, store: MemoryStore, tmp_path: Path, kinds: list[str]
) -> None:
    leased(kube, f"{RUN}/generate/ab")
    report.main(Task(recipe(*kinds), RUN), output=str(tmp_path / "page.html"))
    assert kube.find(DEPLOYMENTS, "moaa-smollm2")["spec"]["replicas"] == 0
    assert (
        store.objects[f"s3://moaa/demo/runs/{RUN}/report.html"]
        == (tmp_path / "page.html").read_bytes()
    )


def test_a_run_that_needs_no_cluster_asks_none(
    kube: KubeServer, store: MemoryStore, tmp_path: Path
) -> None:
    report.main(Task(recipe(), RUN), output=str(tmp_path / "page.html"))
    assert not kube.requests
    assert (tmp_path / "page.html").exists()


def test_without_a_cluster_the_report_is_made_nevertheless(
    store: MemoryStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise ClusterError("the account may not list deployments.apps")

    monkeypatch.setattr(api.Cluster, "connect", refuse)
    report.main(
        Task(recipe("runtime.engines.kind=kubernetes"), RUN), output=str(tmp_path / "page.html")
    )
    assert (tmp_path / "page.html").exists()
    said = capsys.readouterr().err
    assert "its leases run out within 120 s" in said
    assert "may not list deployments.apps" in said


def test_a_recipe_that_does_not_load_has_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, report failed beside preflight, with the mistake in line 46 of a log."""
    text = recipe().replace("model: smollm2", "model: nosuch", 1)
    report.main(Task(text, RUN), output=str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "generate.mixture.proposers[0].model: &#39;nosuch&#39; is not one of" in page
    assert RUN in page
    assert "'nosuch' is not one of" in capsys.readouterr().err


@pytest.mark.parametrize("ends", ["done", "failed"])
def test_a_stage_that_runs_again_renews_the_report(store: MemoryStore, ends: str) -> None:
    """Kubeflow's Retry does not run the report again: it said `failed` for ever."""
    page = f"s3://moaa/demo/runs/{RUN}/report.html"
    task = Task(recipe(), RUN)

    def run() -> None:
        with suppress(SystemExit), report.renewed(task), recorded(GENERATE, task):
            if ends == "failed":
                raise MoaaError("the second mistake")

    run()
    assert page not in store.objects, "the run has not ended yet"
    report.main(task)
    first = store.objects[page]
    run()
    assert store.objects[page] != first
    assert ("the second mistake" in store.objects[page].decode()) == (ends == "failed")


def test_a_report_that_cannot_be_renewed_fails_no_stage(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(recipe(), RUN)
    report.main(task)
    before = dict(store.objects)
    monkeypatch.setattr("moaa.report.build", lambda *_: 1 / 0)
    with report.renewed(task):
        pass
    assert store.objects == before, "the report that was there stays"
