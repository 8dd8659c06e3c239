"""Who holds a training on a cluster, and what happens when its launcher ends."""

from __future__ import annotations

import threading

import pytest

from moaa.kubernetes import leases, names
from moaa.kubernetes.kinds import LEASES, PODS, TRAIN_JOBS, Object
from moaa.lifeline import Terminated
from moaa.progress import Progress
from moaa.train import objects
from moaa.train.lease import LeasedTraining
from tests.support.jobs import NAME
from tests.support.launched import (
    COMPLETE,
    POD,
    Running,
    launch,
    lease,
    log,
    pod,
    set_status,
    there,
)
from tests.support.lease_objects import hold
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("launcher_on_kube")


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


def test_a_stage_that_is_told_to_end_before_it_has_a_training_touches_nobodys(kube):
    body = objects.train_job(launch(), "earlier")
    body["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:10Z"}
    kube.put(TRAIN_JOBS, body)
    assert isinstance(Running(terminated_at("waits until the last")).end(), Terminated)
    assert not kube.count("DELETE")
    assert not kube.count("PATCH")
