"""Trainings on a cluster: created, followed, found again, and gone when they are complete."""

from __future__ import annotations

import pytest

from moaa.kubernetes import names
from moaa.kubernetes.kinds import EVENTS, JOBS, PODS, SERVICES, TRAIN_JOBS
from moaa.train import objects
from tests.support.jobs import NAME
from tests.support.launched import (
    COMPLETE,
    FAILED,
    POD,
    Running,
    ended,
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


def test_the_event_of_one_pod_is_not_said_of_another(kube):
    run = Running()
    until(lambda: there(kube))
    creating = {"waiting": {"reason": "ContainerCreating"}}
    pulling = {"reason": "Pulling", "message": "image x", "lastTimestamp": "9999-01-01T00:00:00Z"}
    kube.put(EVENTS, {"metadata": {"name": "e"}, "involvedObject": {"name": POD}, **pulling})
    for name, uid, index in ((POD, "u1", "0"), ("other", "u2", "1")):
        kube.put(PODS, pod(uid, name=name, index=index, state=creating, phase="Pending"))
    said = "its containers are created: Pulling: image x; its containers are created"
    until(lambda: run.progress.view().note == f"{NAME}: {said}", lambda: run.progress.view().note)
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
