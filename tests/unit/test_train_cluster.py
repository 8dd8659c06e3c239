"""The launcher on a cluster, against a small server in the place of Kubernetes that plays Trainer
too."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from moaa.errors import TrainError
from moaa.kubernetes import leases, names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import JOBS, LEASES, PODS, SERVICES, TRAIN_JOBS, Object
from moaa.ledger import Ledger
from moaa.lifeline import Terminated
from moaa.progress import Progress
from moaa.recipe.schema import Launcher, Runtime
from moaa.train import cluster, objects
from moaa.train.job import Launch
from moaa.train.lease import LeasedTraining
from moaa.train.pod_watch import Timing
from tests.support.jobs import JOB, NAME
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import hold, holders
from tests.support.waiting import until

POD = f"{NAME}-node-0-0-x7"
COMPLETE = {"conditions": [{"type": "Complete", "status": "True", "message": "done"}]}
QUICK = Timing(poll_s=0.02, end_wait_s=2.0)
FAILED = {"conditions": [{"type": "Failed", "status": "True", "message": "jobset failed"}]}


def launch(**launcher: Any) -> Launch:
    runtime = Runtime(launcher=Launcher(**{"kind": "trainer", "ranks": 1, **launcher}))
    return Launch(JOB, runtime, {})


@pytest.fixture
def kube(kube: KubeServer, monkeypatch: pytest.MonkeyPatch) -> KubeServer:
    kube.cluster()  # imports the client now, which takes seconds on a busy machine
    monkeypatch.setattr(Cluster, "connect", lambda namespace=None: kube.cluster())
    return kube


class Running:
    """The launcher in a thread of its own, as a stage would run it."""

    def __init__(
        self, progress: Progress | None = None, timing: Timing = QUICK, **launcher: Any
    ) -> None:
        self.ledger, self.progress = Ledger(), progress or Progress.silent()
        self.error: BaseException | None = None
        self._launch, self._timing = launch(**launcher), timing
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            cluster.start(self._launch, self.ledger, self.progress, self._timing)
        except BaseException as error:
            self.error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> BaseException | None:
        self._thread.join(10)
        assert not self._thread.is_alive(), self.progress.view().note
        return self.error


def pod(
    uid="u1",
    *,
    name=POD,
    index="0",
    kind="jobset.sigs.k8s.io/jobset-name",
    state=None,
    phase="Running",
    **metadata,
):
    return {
        "metadata": {
            "name": name,
            "labels": {kind: NAME, "batch.kubernetes.io/job-completion-index": index},
            **metadata,
        },
        "spec": {"containers": [{"name": "node"}]},
        "status": {
            "phase": phase,
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{"name": "node", "state": state or {"running": {}}}],
        },
    }


def ended(code=1, reason="Error", at="2026-01-01T00:00:10Z"):
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at}}


def log(*lines):
    return "".join(f"2026-01-01T00:00:{n:02d}Z {line}\n" for n, line in enumerate(lines))


def there(kube, kind=TRAIN_JOBS):
    return (kind.plural, NAME) in kube.objects


def set_status(kube, status, kind=TRAIN_JOBS):
    kube.put(kind, {**kube.find(kind, NAME), "status": status})


def lease(kube, kind=TRAIN_JOBS):
    return holders(kube, kind, NAME)


def test_it_is_created_with_a_lease_followed_and_gone_when_it_is_complete(kube):
    run = Running()
    until(lambda: there(kube))
    assert len(lease(kube)) == 1
    kube.logs[POD, "node", False] = log(
        "loading", 'moaa-progress {"step": 3, "steps": 9, "loss": 0.5}'
    )
    kube.put(PODS, pod())
    until(lambda: run.progress.view().done == 3, "no progress")
    kube.put(PODS, pod(state=ended(0, "Completed"), phase="Succeeded"))
    set_status(kube, COMPLETE)
    assert run.end() is None
    assert not there(kube)
    assert not run.ledger.events


def test_it_says_what_its_pods_wait_for(kube):
    run = Running()
    until(lambda: "no pod yet" in run.progress.view().note)
    waiting = pod()
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    }
    waiting["status"] = {"phase": "Pending", "conditions": [unscheduled]}
    kube.put(PODS, waiting)
    until(lambda: "Insufficient nvidia.com/gpu" in run.progress.view().note)
    set_status(kube, COMPLETE)
    run.end()


def test_a_launcher_that_comes_back_goes_on_with_what_is_at_work(kube):
    body = objects.train_job(launch(), "earlier")
    kube.put(TRAIN_JOBS, body)
    hold(kube, TRAIN_JOBS, NAME, "earlier/sft/1")
    run = Running()
    until(lambda: len(lease(kube)) == 2)
    set_status(kube, COMPLETE)
    assert run.end() is None
    assert run.ledger.events["trainings found at work"] == 1
    assert lease(kube) == ["earlier/sft/1"], "the other launcher has yet to see it complete"


def test_a_training_that_an_earlier_version_started_is_found_by_its_old_annotation(kube):
    body = objects.train_job(launch(), "earlier")
    annotations = body["metadata"]["annotations"]
    annotations[names.OLD_DIGEST] = annotations.pop(names.DIGEST)
    kube.put(TRAIN_JOBS, body)
    uid = kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"]
    run = Running()
    until(lambda: len(lease(kube)) == 1)
    assert kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"] == uid
    set_status(kube, COMPLETE)
    assert run.end() is None


@pytest.mark.parametrize("left", [FAILED, COMPLETE], ids=["failed", "complete without a result"])
def test_what_an_earlier_attempt_left_makes_room(kube, left):
    kube.put(
        TRAIN_JOBS,
        {"metadata": {"name": NAME, "labels": {names.TRAINING: NAME}}, "spec": {}, "status": left},
    )
    old = kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"]
    run = Running()
    until(lambda: there(kube) and kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"] != old)
    set_status(kube, COMPLETE)
    assert run.end() is None


def test_a_training_that_was_asked_for_otherwise_and_that_nobody_waits_for_is_replaced(kube):
    body = objects.train_job(launch(ranks=7), "earlier")
    kube.put(TRAIN_JOBS, body)
    run = Running()
    until(
        lambda: (
            there(kube) and kube.find(TRAIN_JOBS, NAME)["spec"]["trainer"]["numProcPerNode"] == 1
        )
    )
    set_status(kube, COMPLETE)
    assert run.end() is None


def test_a_failure_ends_with_the_pods_own_reason_and_stays_to_be_looked_at(kube):
    run = Running()
    until(lambda: there(kube))
    kube.logs[POD, "node", False] = log("step 1", "allocating")
    kube.put(PODS, pod(state=ended(5, "OOMKilled"), phase="Failed"))
    set_status(kube, FAILED)
    error = run.end()
    assert type(error) is TrainError
    assert any("OOMKilled" in line for line in str(error).splitlines()[-2:])
    assert "allocating" in str(error)
    assert there(kube)
    assert lease(kube) == [], "the reaper would delete it"


def test_the_pods_of_a_failed_training_may_vanish_and_their_words_stay(kube):
    run = Running()
    until(lambda: there(kube))
    kube.logs[POD, "node", False] = log(
        'moaa-error {"rank": 0, "time": 1, "type": "TrainError", "message": "the loss is NaN"}'
    )
    kube.put(PODS, pod())
    until(lambda: kube.count("GET", f"pods/{POD}"), "the log was not read")
    kube.put(PODS, pod(state=ended(1), phase="Failed"))
    kube.remove(PODS, POD)
    set_status(kube, FAILED)
    error = run.end()
    assert str(error).startswith("the loss is NaN")
    assert there(kube)
    assert "exit status 1" in str(error).splitlines()[-1]


def test_a_lost_pod_begins_it_again(kube):
    run = Running()
    until(lambda: there(kube))
    first = kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"]
    kube.put(PODS, pod())
    until(lambda: kube.count("GET", f"pods/{POD}"), "the log was not read")
    kube.put(PODS, pod(deletionTimestamp="2026-01-01T00:00:10Z"))
    kube.remove(PODS, POD)
    set_status(kube, FAILED)
    until(lambda: there(kube) and kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"] != first)
    set_status(kube, COMPLETE)
    assert run.end() is None
    assert run.ledger.events["trainings begun again after a pod was lost"] == 1


def test_pods_that_are_lost_again_and_again_are_an_error(kube):
    run = Running()
    for n in range(cluster.MAX_LOST_PODS + 1):
        until(lambda: there(kube) and not kube.find(TRAIN_JOBS, NAME).get("status"))
        kube.put(PODS, pod(name=f"p{n}", state=ended(137), phase="Failed"))
        set_status(kube, FAILED)
        until(lambda: not there(kube) or not run.running, "the failed TrainJob was not deleted")
        kube.remove(PODS, f"p{n}")
    error = run.end()
    assert type(error) is TrainError
    assert "happened 4 times" in str(error)


def test_a_training_that_the_reaper_ended_is_begun_again(kube):
    run = Running()
    until(lambda: there(kube) and kube.count("GET", "pods"))
    first = kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"]
    kube.remove(TRAIN_JOBS, NAME)
    until(lambda: there(kube) and kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"] != first)
    set_status(kube, COMPLETE)
    assert run.end() is None
    assert run.ledger.events == {"trainings begun again after they were deleted": 1}
    assert lease(kube) == []


def test_a_training_that_is_deleted_again_and_again_is_an_error_that_says_so(kube):
    run = Running()
    last = ""
    for _ in range(cluster.MAX_LOST_PODS + 1):
        until(lambda: there(kube) and kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"] != last)  # noqa: B023
        last = kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"]
        kube.remove(TRAIN_JOBS, NAME)
    error = run.end()
    assert "was deleted while it trained, by the reaper or by hand" in str(error)
    assert "happened 4 times" in str(error)


def test_a_training_is_never_without_a_lease(kube):
    """The reaper could come between the two."""
    kube.fail(503, times=3, when=lambda method, what: method == "POST" and what == "trainjobs")
    run = Running()
    until(lambda: there(kube))
    made = [what for method, what, _ in kube.requests if method == "POST"]
    assert made[0] == "leases"
    assert len(lease(kube)) == 1
    set_status(kube, COMPLETE)
    assert run.end() is None


def test_what_was_asked_for_otherwise_goes_on_while_its_launcher_renews(kube):
    body = objects.train_job(launch(ranks=7), "earlier")
    kube.put(TRAIN_JOBS, body)
    uid = kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"]
    hold(kube, TRAIN_JOBS, NAME, "earlier/sft/1")
    run = Running()
    until(lambda: kube.count("GET", "leases") > 2)
    assert len(lease(kube)) == 1, "not known yet whether anybody waits"
    hold(kube, TRAIN_JOBS, NAME, "earlier/sft/1")
    until(lambda: len(lease(kube)) == 2)
    assert kube.find(TRAIN_JOBS, NAME)["metadata"]["uid"] == uid
    set_status(kube, COMPLETE)
    assert run.end() is None


def test_what_was_asked_for_otherwise_goes_with_its_dead_launcher(kube, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_S", 0.9)  # the whole seconds of a new lease: 0
    kube.put(TRAIN_JOBS, objects.train_job(launch(ranks=7), "earlier"))
    hold(kube, TRAIN_JOBS, NAME, "earlier/sft/1")
    run = Running()
    until(
        lambda: (
            there(kube) and kube.find(TRAIN_JOBS, NAME)["spec"]["trainer"]["numProcPerNode"] == 1
        )
    )
    set_status(kube, COMPLETE)
    assert run.end() is None


def terminated_at(words: str) -> Progress:
    """A progress that gets SIGTERM, as it were, when it is about to show these words."""
    progress = Progress.silent()

    def note(text: str) -> None:
        if words in text:
            raise Terminated

    progress.note = note  # type: ignore[method-assign]
    return progress


def test_a_stage_that_is_told_to_end_takes_its_training_with_it(kube):
    run = Running(terminated_at("no pod yet"))
    assert isinstance(run.end(), Terminated)
    assert not there(kube)
    assert lease(kube) == []
    gone = [what.partition("/")[0] for method, what, _ in kube.requests if method == "DELETE"]
    assert gone == ["trainjobs", "leases"], "a lease that is left ends nobody's work"


def test_nobody_reads_logs_for_a_launcher_that_has_left(kube):
    run = Running()
    until(lambda: there(kube))
    kube.logs[POD, "node", False] = log('moaa-progress {"step": 1, "steps": 9}')
    kube.put(PODS, pod())
    until(lambda: run.progress.view().done == 1)
    set_status(kube, COMPLETE)
    assert run.end() is None
    until(
        lambda: not [each for each in threading.enumerate() if each.name == "log of a rank"],
        "the log is still read",
    )


def test_but_not_from_another_launcher_that_waits_for_it(kube):
    body = objects.train_job(launch(), "earlier")
    kube.put(TRAIN_JOBS, body)
    hold(kube, TRAIN_JOBS, NAME, "other/sft/1")
    assert isinstance(Running(terminated_at("no pod yet")).end(), Terminated)
    assert there(kube)
    assert lease(kube) == ["other/sft/1"]


def test_nor_from_one_that_joins_in_the_same_moment(kube, monkeypatch):
    """It joins after we have looked at the leases, and before we delete."""
    delete = LeasedTraining._delete

    def and_joined_before(self: LeasedTraining, seen: Object) -> None:
        monkeypatch.setattr(LeasedTraining, "_delete", delete)
        hold(kube, TRAIN_JOBS, NAME, "other/sft/1")
        joined = {"metadata": {"annotations": {names.JOINED: "other/sft/1"}}}
        kube.cluster().update(TRAIN_JOBS, NAME, lambda found: dict(joined))
        delete(self, seen)

    monkeypatch.setattr(LeasedTraining, "_delete", and_joined_before)
    assert isinstance(Running(terminated_at("no pod yet")).end(), Terminated)
    assert there(kube)
    assert lease(kube) == ["other/sft/1"]


def test_the_lease_is_renewed_whatever_the_api_server_does(kube, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.05)
    run = Running()
    until(lambda: there(kube))

    def renewed(times: int = 2) -> None:
        before = kube.count("PATCH", "leases/")
        until(lambda: kube.count("PATCH", "leases/") > before + times, "it was not renewed")

    kube.fail(503, times=3)
    renewed(5)
    kube.fail(401, "Unauthorized", times=3)  # the token is being replaced
    renewed(5)
    (name,) = [name for plural, name in kube.objects if plural == "leases"]
    kube.remove(LEASES, name)  # by hand
    until(lambda: len(lease(kube)) == 1)
    set_status(kube, COMPLETE)
    assert run.end() is None


def test_a_watch_that_breaks_misses_nothing(kube):
    run = Running()
    until(lambda: there(kube) and kube.count("GET", "pods"))
    kube.forget_history()
    kube.logs[POD, "node", False] = log('moaa-progress {"step": 2, "steps": 9}')
    kube.put(PODS, pod())
    until(lambda: run.progress.view().done == 2)
    kube.cut_watches()
    set_status(kube, COMPLETE)
    assert run.end() is None


def test_without_trainer_an_indexed_job_and_its_service_do_the_same(kube):
    kube.unknown.add("trainjobs")
    run = Running(nodes=2)
    until(lambda: there(kube, JOBS) and ("services", NAME) in kube.objects)
    assert (
        kube.find(SERVICES, NAME)["metadata"]["ownerReferences"][0]["uid"]
        == kube.find(JOBS, NAME)["metadata"]["uid"]
    )
    kube.logs[POD, "node", False] = log('moaa-progress {"step": 4, "steps": 9}')
    kube.put(PODS, pod(kind="batch.kubernetes.io/job-name"))
    until(lambda: run.progress.view().done == 4)
    set_status(kube, COMPLETE, JOBS)
    assert run.end() is None
    assert run.ledger.events == {"trained as an Indexed Job: Kubeflow Trainer is not installed": 1}


def test_an_image_that_cannot_be_pulled_is_given_up_with_its_reason(kube):
    run = Running(timing=replace(QUICK, cannot_start_s=0.1))
    until(lambda: there(kube))
    kube.put(
        PODS,
        pod(
            state={
                "waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x:1"'}
            },
            phase="Pending",
        ),
    )
    error = run.end()
    assert "cannot start" in str(error)
    assert 'ImagePullBackOff: Back-off pulling image "x:1"' in str(error)
    assert not there(kube), "its pods would wait for ever"


def test_a_rank_that_failed_says_its_words_once(kube):
    """A log that is read again after its end brings no line twice."""
    run = Running()
    until(lambda: there(kube))
    kube.logs[POD, "node", False] = log("x", 'moaa-progress {"step": 1, "steps": 9}')
    kube.put(PODS, pod())
    until(lambda: kube.count("GET", f"pods/{POD}") > 3, "the log was not read again")
    kube.logs[POD, "node", False] = log(
        "x", 'moaa-progress {"step": 1, "steps": 9}', 'moaa-progress {"step": 2, "steps": 9}'
    )
    until(lambda: run.progress.view().done == 2)
    kube.put(PODS, pod(state=ended(0), phase="Succeeded"))
    set_status(kube, COMPLETE)
    assert run.end() is None


def test_a_stage_that_is_told_to_end_before_it_has_a_training_touches_nobodys(kube):
    body = objects.train_job(launch(), "earlier")
    body["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:10Z"}
    kube.put(TRAIN_JOBS, body)
    assert isinstance(Running(terminated_at("waits until the last")).end(), Terminated)
    assert not kube.count("DELETE")
    assert not kube.count("PATCH")
