"""Why a training on a cluster ended, read from its pods and its ranks' words."""

from __future__ import annotations

import json

import pytest

from moaa.errors import StoreError, TrainError
from moaa.progress import Progress
from moaa.train import ends
from moaa.train.listening import Listener

T0 = "2026-01-01T00:00:10Z"
T1 = "2026-01-01T00:00:11Z"
T5 = "2026-01-01T00:00:15Z"


def pod(name, *, exit_code=None, reason="Error", at=T0, deleted=None, phase=None, status=None, disrupted=False):
    metadata = {"name": name, "uid": f"u-{name}"}
    if deleted:
        metadata |= {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": 0}
    ended = (
        {"terminated": {"exitCode": exit_code, "reason": reason, "finishedAt": at}} if exit_code is not None else {"running": {}}
    )
    found = {"phase": phase or ("Failed" if exit_code else "Running"), "containerStatuses": [{"name": "node", "state": ended}]}
    if disrupted:
        found["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
    return {"metadata": metadata, "spec": {}, "status": found | (status or {})}


def heard(*lines):
    listener = Listener(Progress.silent())
    for line in lines:
        listener.line(line)
    return listener


def says(kind, message, at=1.0):
    return "moaa-error " + json.dumps({"rank": 0, "time": at, "type": kind, "message": message})


def error(*seen, gone=(), **logs):
    listeners = {f"u-{name}": listener for name, listener in logs.items()}
    return ends.error(
        "TrainJob t", list(seen), {f"u-{name}" for name in gone}, listeners, "Failed: jobset failed", "kubectl logs "
    )


def test_out_of_memory_is_the_reason_even_where_the_exit_status_is_the_parents_and_others_complain_first():
    found = error(
        pod("a", exit_code=1, at=T0), pod("b", exit_code=5, reason="OOMKilled", at=T1),
        a=heard(says("RuntimeError", "Connection closed by peer")), b=heard("step 4", "Killed"),
    )  # fmt: skip
    assert type(found) is TrainError
    last = str(found).splitlines()[-2:]
    assert last[0] == "  Pod b: container 'node' was ended: OOMKilled."
    assert "micro_batch" in last[1]
    assert "    Killed" in str(found)


def test_a_ranks_own_error_comes_first_and_the_pods_words_last():
    found = error(
        pod("a", exit_code=1), pod("b", exit_code=1),
        a=heard(says("RuntimeError", "Connection closed by peer", at=3.0)), b=heard(says("ValueError", "boom", at=2.0)),
    )  # fmt: skip
    assert type(found) is TrainError
    assert "Rank 0 failed: ValueError: boom" in str(found)
    assert "kubectl logs b" in str(found)
    assert str(found).splitlines()[-1] == "  Pod b: container 'node' ended with exit status 1."


def test_a_users_mistake_keeps_its_kind():
    found = error(pod("a", exit_code=1), a=heard(says("StoreError", "no such bucket")))
    assert type(found) is StoreError
    assert str(found).startswith("no such bucket")


def test_a_container_that_never_got_to_our_code_shows_its_log():
    found = error(pod("a", exit_code=127), a=heard("exec: python3: not found"))
    assert "exec: python3: not found" in str(found)
    assert str(found).splitlines()[-1] == "  Pod a: container 'node' ended with exit status 127."


@pytest.mark.parametrize(
    "taken",
    [
        pod("a", deleted=T0),
        pod("a", exit_code=143, deleted=T0),
        pod("a", exit_code=1, disrupted=True),
        pod("a", exit_code=137),
        pod("a", phase="Failed", status={"reason": "Evicted", "message": "The node was low on memory"}),
    ],
    ids=["deleted", "deleted and ended", "disrupted", "killed", "evicted"],
)
def test_a_pod_that_was_taken_away_is_lost_whatever_the_others_say_of_it(taken):
    found = error(taken, pod("b", exit_code=1, at=T1), b=heard(says("RuntimeError", "gloo: Connection reset by peer")))
    assert isinstance(found, ends.Lost)
    assert "lost pod a" in str(found)


def test_a_pod_that_vanished_is_lost():
    assert isinstance(error(pod("a"), pod("b", exit_code=1), gone="a"), ends.Lost)


def test_pods_that_are_cleaned_up_after_a_failure_are_not_lost():
    found = error(pod("a", exit_code=1, at=T0), pod("b", exit_code=143, deleted=T5, at=T5), a=heard("bang"))
    assert not isinstance(found, ends.Lost)
    assert "Pod a: container 'node' ended with exit status 1" in str(found)


def test_a_failing_training_is_not_begun_again_because_its_pods_are_deleted_in_the_same_second():
    found = error(pod("a", exit_code=1), pod("b", exit_code=143, deleted=T0), a=heard(says("ValueError", "boom")))
    assert not isinstance(found, ends.Lost)


def test_without_any_pod_the_objects_own_words_are_told():
    assert str(error()) == "TrainJob t failed: Failed: jobset failed."


def test_a_container_that_cannot_start_is_stuck_only_where_waiting_does_not_help():
    def waits(reason):
        waiting = {"waiting": {"reason": reason, "message": "no such image"}}
        return {"metadata": {"name": "a"}, "status": {
            "conditions": [{"type": "PodScheduled", "status": "True"}], "containerStatuses": [{"name": "node", "state": waiting}],
        }}  # fmt: skip

    assert "ImagePullBackOff" in ends.stuck(waits("ImagePullBackOff"))
    assert not ends.stuck(waits("ContainerCreating"))
