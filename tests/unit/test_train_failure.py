"""Why a training on a cluster failed: the first cause, in the words of who saw it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moaa.errors import StoreError, TrainError
from moaa.train import failure
from tests.support.failing_pods import SEGFAULT, T0, T1, T5, error, heard, pod, says


def test_out_of_memory_is_the_reason_even_if_others_complain_first():
    found = error(
        pod("a", exit_code=1, at=T0),
        pod("b", exit_code=5, reason="OOMKilled", at=T1),
        a=heard(says("RuntimeError", "Connection closed by peer")),
        b=heard("step 4", "Killed"),
    )
    assert type(found) is TrainError
    last = str(found).splitlines()[-2:]
    assert last[0] == "  Pod b: container 'node' was ended: OOMKilled."
    assert "micro_batch" in last[1]
    assert "    Killed" in str(found)


def test_a_ranks_own_error_comes_first_and_the_pods_words_last():
    found = error(
        pod("a", exit_code=1),
        pod("b", exit_code=1),
        a=heard(says("RuntimeError", "Connection closed by peer", at=3.0)),
        b=heard(says("ValueError", "boom", at=2.0)),
    )
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


@pytest.mark.parametrize("deleted", [T0, T1, T5])
@pytest.mark.parametrize(
    ("code", "lines"), [(1, SEGFAULT), (127, ["exec: python3: not found"]), (1, [])]
)
def test_a_crash_without_a_word_of_a_rank_is_told_however_soon_the_others_are_cleaned_up(
    code, lines, deleted
):
    found = error(
        pod("a", exit_code=code), pod("b", exit_code=143, deleted=deleted, at=T5), a=heard(*lines)
    )
    assert not isinstance(found, failure.PodLost)
    assert f"Pod a: container 'node' ended with exit status {code}" in str(found)


def test_a_segmentation_fault_is_the_reason_though_its_peers_miss_it_first():
    found = error(
        pod("a", exit_code=1, deleted=T0),
        pod("b", exit_code=1),
        a=heard(says("RuntimeError", "gloo: Connection reset by peer")),
        b=heard(*SEGFAULT),
    )
    assert not isinstance(found, failure.PodLost)
    assert "SIGSEGV" in str(found)


def test_what_the_library_says_of_itself_is_told_where_the_others_were_deleted_a_second_later():
    found = error(
        pod("a", exit_code=1),
        pod("b", exit_code=143, deleted=T1, at=T5),
        a=heard(says("DistBackendError", "NCCL error: unhandled system error")),
    )
    assert not isinstance(found, failure.PodLost)
    assert "unhandled system error" in str(found)


def test_without_any_pod_the_objects_own_words_are_told():
    assert str(error()) == "TrainJob t failed: Failed: jobset failed."


def test_a_container_that_cannot_start_is_stuck_only_where_waiting_does_not_help():
    def waits(reason):
        waiting = {"waiting": {"reason": reason, "message": "no such image"}}
        return {
            "metadata": {"name": "a"},
            "status": {
                "conditions": [{"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [{"name": "node", "state": waiting}],
            },
        }

    assert "ImagePullBackOff" in failure.cannot_start(waits("ImagePullBackOff"))
    assert not failure.cannot_start(waits("ContainerCreating"))


PODS = st.builds(
    lambda name, code, at, deleted, disrupted: pod(
        name,
        exit_code=code,
        reason="OOMKilled" if code == 5 else "Error",
        at=at,
        deleted=deleted,
        disrupted=disrupted,
    ),
    st.sampled_from("abcdef"),
    st.sampled_from([None, 1, 5, 127, 137, 143]),
    st.sampled_from([T0, T1, T5]),
    st.sampled_from([None, T0, T1, T5]),
    st.booleans(),
)


@given(
    st.lists(PODS, unique_by=lambda each: each["metadata"]["name"], max_size=4),
    st.sets(st.sampled_from("abcdef")),
    st.randoms(),
)
def test_the_order_in_which_pods_are_listed_is_no_reason(pods, gone, random):
    found = error(*pods, gone=gone)
    shuffled = list(pods)
    random.shuffle(shuffled)
    again = error(*shuffled, gone=gone)
    assert (type(again), str(again)) == (type(found), str(found))
