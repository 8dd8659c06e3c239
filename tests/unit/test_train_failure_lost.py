"""Pods that were taken away, deleted or lost, and failures that only look so."""

from __future__ import annotations

import pytest

from moaa.train import failure
from tests.support.failing_pods import SEGFAULT, T0, T1, T5, error, heard, pod, says


@pytest.mark.parametrize(
    "taken",
    [
        pod("a", deleted=T0),
        pod("a", exit_code=143, deleted=T0),
        pod("a", exit_code=1, disrupted=True),
        pod("a", exit_code=137),
        pod(
            "a",
            phase="Failed",
            status={"reason": "Evicted", "message": "The node was low on memory"},
        ),
    ],
    ids=["deleted", "deleted and ended", "disrupted", "killed", "evicted"],
)
def test_a_pod_that_was_taken_away_is_lost_whatever_the_others_say_of_it(taken):
    found = error(
        taken,
        pod("b", exit_code=1, at=T1),
        b=heard(says("RuntimeError", "gloo: Connection reset by peer")),
    )
    assert isinstance(found, failure.PodLost)
    assert "lost pod a" in str(found)


def test_a_pod_that_vanished_is_lost():
    assert isinstance(error(pod("a"), pod("b", exit_code=1), gone="a"), failure.PodLost)


def test_pods_that_are_cleaned_up_after_a_failure_are_not_lost():
    found = error(
        pod("a", exit_code=1, at=T0), pod("b", exit_code=143, deleted=T5, at=T5), a=heard("bang")
    )
    assert not isinstance(found, failure.PodLost)
    assert "Pod a: container 'node' ended with exit status 1" in str(found)


def test_a_pod_that_was_deleted_before_the_others_failed_is_lost():
    assert isinstance(
        error(pod("a", exit_code=143, deleted=T0), pod("b", exit_code=1, at=T1)), failure.PodLost
    )
    assert isinstance(
        error(pod("a", exit_code=1, deleted=T0, at=T1), pod("b", exit_code=1, at=T1)),
        failure.PodLost,
    )


@pytest.mark.parametrize(
    "taken",
    [
        pod("a", exit_code=137, disrupted=True),
        pod("a", exit_code=143, deleted=T0),
        pod("a", exit_code=1, deleted=T0),
    ],
    ids=["drained", "deleted", "deleted, exit 1 of torchrun"],
)
def test_a_node_that_is_lost_is_the_reason_though_its_peers_are_aborted_for_it(taken):
    """NCCL's watchdog ends them by SIGABRT."""
    aborted = [line.replace("-11", "-6") for line in SEGFAULT]
    assert isinstance(
        error(taken, pod("b", exit_code=1, at=T5), b=heard(*aborted)), failure.PodLost
    )


@pytest.mark.parametrize("at", [T0, T1])
def test_torchrun_ends_with_1_when_its_pod_is_deleted(at):
    signalled = heard(
        "torch.distributed.elastic.multiprocessing.api.SignalException: Process 1 got signal: 15"
    )
    assert isinstance(error(pod("a", exit_code=1, deleted=T0, at=at), a=signalled), failure.PodLost)
    assert isinstance(
        error(pod("a", exit_code=1, deleted=T0, at=at), pod("b", exit_code=1, deleted=T1, at=T1)),
        failure.PodLost,
    )


def test_a_pod_that_is_cleaned_up_after_its_own_crash_is_not_lost():
    found = error(
        pod("a", exit_code=1, deleted=T1), pod("b", exit_code=1, deleted=T1, at=T5), a=heard("bang")
    )
    assert not isinstance(found, failure.PodLost)
    assert "Pod a: container 'node' ended with exit status 1" in str(found)


def test_a_deadline_is_the_reason_and_not_the_deletion_of_its_pods():
    found = error(
        pod("a", exit_code=143, deleted=T0),
        said="DeadlineExceeded: Job was active longer than specified deadline",
    )
    assert not isinstance(found, failure.PodLost)
    assert (
        str(found).splitlines()[-1]
        == "  DeadlineExceeded: Job was active longer than specified deadline"
    )


def test_a_failing_training_is_not_begun_again_because_its_pods_are_deleted_in_the_same_second():
    found = error(
        pod("a", exit_code=1),
        pod("b", exit_code=143, deleted=T0),
        a=heard(says("ValueError", "boom")),
    )
    assert not isinstance(found, failure.PodLost)
