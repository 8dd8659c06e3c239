"""`moaa retrain` on Kubeflow and in a cluster: a run that goes on is found, never begun twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moaa.kubernetes.kinds import JOBS
from moaa.pipelines import submit
from moaa.retrain import progress
from tests.support.incluster import background, ended, followed, name_of
from tests.support.kfp_server import KfpServer
from tests.support.kube_server import KubeServer
from tests.support.memory_store import MemoryStore
from tests.support.retraining import NAME, Command, command, leave, promoted

pytestmark = pytest.mark.xdist_group("kfp")
ON_CLUSTER = {"engines": {"kind": "kubernetes"}, "launcher": {"kind": "trainer"}}


@pytest.fixture
def kfp(
    kfp: KfpServer, no_cluster: None, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> KfpServer:
    """Its runs leave their records when they have succeeded."""
    answer = kfp.answer

    def answered(method: str, path: str, *rest: Any) -> tuple[int, dict[str, Any]]:
        status, found = answer(method, path, *rest)
        if found.get("state") == "SUCCEEDED":
            leave(store, found["run_id"], "promote", promoted=promoted())
        return status, found

    monkeypatch.setattr(kfp, "answer", answered)
    return kfp


@pytest.fixture
def retrain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    return command(monkeypatch, capsys, tmp_path, runtime=ON_CLUSTER)


def test_a_run_is_waited_for_and_the_next_command_has_nothing_to_do(
    retrain: Command, kfp: KfpServer, store: MemoryStore
) -> None:
    kfp.states = ["PENDING", "RUNNING", "SUCCEEDED"]
    status, out, _ = retrain("--host", kfp.url, "--wait")
    (run,) = kfp.runs
    assert (status, "aligned: promoted, version v1" in out) == (0, True)
    begun = progress.read(store, NAME)
    assert begun
    assert (begun.run, begun.label) == (run["run_id"], run["display_name"])
    assert begun.state == "promoted"


def test_a_command_that_was_killed_before_it_knew_the_run_finds_it(
    retrain: Command, kfp: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL between Kubeflow's answer and our note: no second run of the same inputs."""
    written = progress.write

    def killed(store: MemoryStore, name: str, begun: progress.Begun) -> None:
        if begun.run:
            raise SystemExit(137)
        written(store, name, begun)

    with monkeypatch.context() as patch:
        patch.setattr(progress, "write", killed)
        assert retrain("--host", kfp.url, "--wait")[0] == 137
    status, _, err = retrain("--host", kfp.url, "--wait")
    assert (status, len(kfp.runs)) == (0, 1)
    assert f"continues run {kfp.runs[0]['run_id']}" not in err, "it was over by then"


def test_a_command_that_was_stopped_while_it_waited_waits_for_the_same_run(
    retrain: Command, kfp: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.states = ["RUNNING"]

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("moaa.pipelines.submit.time.sleep", stop)
        assert retrain("--host", kfp.url, "--wait")[0] == 130
    status, _, err = retrain("--host", kfp.url)
    assert (status, len(kfp.runs)) == (75, 1)
    kfp.states, kfp.looks = ["RUNNING", "RUNNING", "SUCCEEDED"], 0
    status, _, err = retrain("--host", kfp.url, "--wait")
    assert (status, len(kfp.runs)) == (0, 1)
    assert f"continues run {kfp.runs[0]['run_id']}, which an earlier command started" in err


def test_without_waiting_the_outcome_is_found_later(retrain: Command, kfp: KfpServer) -> None:
    kfp.states = ["RUNNING"]
    status, out, _ = retrain("--host", kfp.url)
    assert (status, "aligned: started" in out) == (0, True)
    kfp.states = ["SUCCEEDED"]
    status, out, _ = retrain("--host", kfp.url)
    assert (status, len(kfp.runs)) == (0, 1)
    assert "aligned: promoted, version v1" in out


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_that_failed_or_is_gone_is_begun_anew(
    retrain: Command, kfp: KfpServer, lost: bool
) -> None:
    kfp.states = ["RUNNING"]
    assert retrain("--host", kfp.url)[0] == 0
    if lost:
        kfp.runs.clear()
    else:
        kfp.states = ["FAILED"]
    status, out, err = retrain("--host", kfp.url)
    assert (status, len(kfp.runs)) == (0, 1 if lost else 2)
    assert "aligned: started" in out
    assert ("of an earlier command failed" in err) == (not lost)


def test_a_run_of_other_inputs_is_waited_for_before_the_next(
    retrain: Command, kfp: KfpServer, store: MemoryStore
) -> None:
    kfp.states = ["RUNNING"]
    assert retrain("--host", kfp.url)[0] == 0
    kfp.states, kfp.looks = ["RUNNING", "RUNNING", "SUCCEEDED"], 0
    status, _, err = retrain("--host", kfp.url, "--wait", "--set", "dpo.beta=0.07")
    assert (status, len(kfp.runs)) == (0, 2)
    assert "had other inputs and is promoted: a new one is started" in err
    begun = progress.read(store, NAME)
    assert begun
    assert begun.run == kfp.runs[1]["run_id"]


def test_what_was_begun_elsewhere_is_left_alone_and_said(
    retrain: Command, kfp: KfpServer, store: MemoryStore
) -> None:
    kfp.states = ["RUNNING"]
    assert retrain("--host", kfp.url)[0] == 0
    status, _, err = retrain("--host", kfp.url, "--namespace", "team")
    assert (status, len(kfp.runs)) == (0, 2)
    assert f"on kind kubeflow, host {kfp.url} is not continued here" in " ".join(err.split())


def test_a_failed_run_ends_with_the_stages_own_error(retrain: Command, kfp: KfpServer) -> None:
    kfp.states = ["FAILED"]
    status, _, err = retrain("--host", kfp.url, "--wait")
    assert status == 1
    assert "the run is FAILED, but no stage recorded an error" in err


def test_a_kubeflow_that_does_not_answer_leaves_the_run_to_the_next_command(
    retrain: Command, kfp: KfpServer, monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    kfp.states = ["RUNNING"]
    monkeypatch.setattr(submit, "PATIENCE_S", 0.0)
    monkeypatch.setattr(submit, "POLL_S", 0.01)
    looked = kfp.answer

    def away(method: str, path: str, *rest: Any) -> tuple[int, dict[str, Any]]:
        if method == "GET" and path.rpartition("/")[0].endswith("runs"):
            return 503, {"message": "upstream is restarting"}
        return looked(method, path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(kfp, "answer", away)
        status, _, err = retrain("--host", kfp.url, "--wait")
    assert status == 1
    assert "The run continues" in err
    begun = progress.read(store, NAME)
    assert begun
    assert not begun.state
    kfp.states = ["SUCCEEDED"]
    assert retrain("--host", kfp.url, "--wait")[0] == 0
    assert len(kfp.runs) == 1


def test_a_job_that_goes_on_is_followed_not_created_again(
    retrain: Command, kube: KubeServer, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed(kube, monkeypatch)
    status, out, _ = retrain("--in-cluster")
    assert (status, "aligned: started" in out) == (0, True)
    assert retrain("--in-cluster")[0] == 75

    def finish(run_id: str) -> None:
        leave(store, run_id, "refuse")
        ended(kube)(run_id)

    background(kube, finish)
    status, _, err = retrain("--in-cluster", "--wait")
    assert status == 3
    assert "dpo lost" in err
    assert len([name for kind, name in kube.objects if kind == JOBS.plural]) == 1
    assert progress.read(store, NAME).run == name_of(kube)  # type: ignore[union-attr]
