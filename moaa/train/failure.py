"""Why a training on a cluster failed: found in its pods and its ranks' logs, without I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from moaa.errors import MoaaError, TrainError
from moaa.kubernetes.kinds import Object
from moaa.kubernetes.pods import death, waits_for
from moaa.train.log_reader import MEMORY, LogReader

_TAKEN_AWAY: Final = {
    "Evicted",
    "Preempting",
    "Preempted",
    "NodeLost",
    "NodeShutdown",
    "NodeAffinity",
    "Shutdown",
    "Terminated",
    "UnexpectedAdmissionError",
}
"""Reasons of a failed pod that do not come from the training in it."""
_SIGNALS: Final = (137, 143)
"""Exit statuses of a container that was stopped from outside: SIGKILL without an OOM, SIGTERM."""
_LOST_PEER_TYPES: Final = {
    "RuntimeError",
    "ConnectionError",
    "DistBackendError",
    "DistNetworkError",
    "DistStoreError",
    "ConnectionResetError",
    "BrokenPipeError",
    "Terminated",
    "SignalException",
}
_LOST_PEER: Final = re.compile(
    r"[Cc]onnection|closed by peer|[Gg]loo|NCCL|ProcessGroup|broken pipe|[Tt]imed? ?out", re.ASCII
)
"""An error of a type above with such a message means that another rank is gone."""
_CANNOT_START: Final = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}


class PodLost(TrainError):
    """A pod was removed: another one can continue from the newest checkpoint."""

    event = "trainings begun again after a pod was lost"


class TrainingDeleted(PodLost):
    """The training was deleted with its pods, by the reaper or by hand."""

    event = "trainings begun again after they were deleted"


def explain_failure(
    name: str,
    pods: Sequence[Object],
    vanished: set[str],
    logs: Mapping[str, LogReader],
    condition: str,
    log_command: str,
) -> MoaaError:
    """Return the error of a training that failed; PodLost if a lost pod is the only reason.

    `pods`: as last seen. `vanished`: uids of pods that disappeared before they stopped. `logs`: by
    the pod's uid. `condition`: of the failed object. `log_command`: prints a pod's log; the pod's
    name is appended.
    """
    by_failure = sorted(pods, key=lambda pod: (_failed_at(pod), pod["metadata"]["name"]))
    for pod in by_failure:
        if "OOMKilled" in death(pod):
            return TrainError(f"{name} failed.\n{_tail(logs, pod)}{_state(pod)}\n  {MEMORY}")
    first = min(logs, key=lambda uid: logs[uid].first_error_time, default=None)
    errors = logs[first].errors if first else []
    explained = any(map(_is_own_failure, errors))
    if "DeadlineExceeded" in condition and not explained:
        tail = _tail(logs, by_failure[0]) if by_failure else ""
        return TrainError(f"{name} did not end before its deadline.\n{tail}  {condition}")
    crashed = [pod for pod in by_failure if _crashed(logs, pod)]
    # A rank reports a lost peer, and nothing crashed: a deletion in the same second was the reason.
    same_second = bool(errors) and not crashed
    lost = [pod for pod in pods if _is_lost(pod, pods, vanished, same_second=same_second)]
    if lost and not explained:
        pod = next(pod for pod in by_failure if pod in lost)
        why = death(pod) or "it was deleted"
        return PodLost(f"{name} lost pod {pod['metadata']['name']}: {why}.")
    guilty = [pod for pod in pods if explained and _uid(pod) == first]
    guilty += crashed + [pod for pod in by_failure if death(pod)]
    if not guilty:
        return TrainError(f"{name} failed: {condition}.")
    if _uid(guilty[0]) not in logs:
        return TrainError(f"{name} failed: {condition}.\n{_state(guilty[0])}")
    log = f"{log_command}{guilty[0]['metadata']['name']}"
    found = logs[_uid(guilty[0])].explain(None, log)
    return type(found)(f"{found}\n{_state(guilty[0])}")


def cannot_start(pod: Object) -> str:
    """Return why a container of this pod cannot start, if waiting will hardly help;
    empty otherwise."""
    for container in pod.get("status", {}).get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _CANNOT_START:
            return waits_for(pod, 0.0)
    return ""


def has_ended(pod: Object) -> bool:
    """Return whether the pod has succeeded or failed."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _is_own_failure(error: Mapping[str, Any]) -> bool:
    """Return whether a rank failed by itself, and not because another rank is gone."""
    lost_peer = _LOST_PEER.search(f"{error['type']} {error['message']}")
    return not (error["type"] in _LOST_PEER_TYPES and lost_peer)


def _is_lost(pod: Object, pods: Sequence[Object], vanished: set[str], *, same_second: bool) -> bool:
    """Return whether the pod was removed, and not only deleted after another one failed.

    `same_second`: whether a deletion in the same second as that failure counts as removed.
    """
    status = pod.get("status", {})
    for condition in status.get("conditions") or []:
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return True
    if status.get("reason") in _TAKEN_AWAY:
        return True
    deleted = _deleted_at(pod)
    if deleted is None:
        return _uid(pod) in vanished or _stopped_from_outside(pod)
    if _failed_at(pod) < deleted:
        return False
    # The pod failed after its deletion, by the SIGTERM. Did another one fail before it?
    others = (other for other in pods if other is not pod and not _stopped_from_outside(other))
    failed = min(map(_failed_at, others), default=math.inf)
    return deleted < failed or (same_second and deleted == failed)


def _stopped_from_outside(pod: Object) -> bool:
    return any(
        ((each.get("state") or {}).get("terminated") or {}).get("exitCode") in _SIGNALS
        for each in pod.get("status", {}).get("containerStatuses") or []
    )


def _crashed(logs: Mapping[str, LogReader], pod: Object) -> bool:
    """Return whether torchrun reports a rank that a signal stopped (SIGSEGV, NCCL's abort), in a
    pod that nobody deleted."""
    log = logs.get(_uid(pod))
    return log is not None and bool(log.killed_ranks) and _deleted_at(pod) is None


def _failed_at(pod: Object) -> float:
    """Return when the first of its containers failed; infinity if none did."""
    ends = [
        _time(ended.get("finishedAt"))
        for each in pod.get("status", {}).get("containerStatuses") or []
        if (ended := (each.get("state") or {}).get("terminated")) and ended.get("exitCode")
    ]
    return min(ends, default=math.inf)


def _deleted_at(pod: Object) -> float | None:
    """Return when its deletion was requested: Kubernetes notes the end
    of the grace period after it."""
    at = pod["metadata"].get("deletionTimestamp")
    return _time(at) - (pod["metadata"].get("deletionGracePeriodSeconds") or 0) if at else None


def _time(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else math.inf


def _uid(pod: Object) -> str:
    uid: str = pod["metadata"]["uid"]
    return uid


def _tail(logs: Mapping[str, LogReader], pod: Object) -> str:
    log = logs.get(_uid(pod))
    return f"{log.tail}\n" if log and log.tail else ""


def _state(pod: Object) -> str:
    return f"  Pod {pod['metadata']['name']}: {death(pod) or 'ended without an error'}."
