"""Trainings on a cluster that fail, lose pods or are deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moaa.errors import TrainError
from moaa.kubernetes.kinds import PODS, TRAIN_JOBS
from moaa.train import cluster
from tests.support.jobs import NAME
from tests.support.launched import (
    COMPLETE,
    FAILED,
    POD,
    QUICK,
    Running,
    ended,
    lease,
    log,
    pod,
    set_status,
    there,
)
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("launcher_on_kube")


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
