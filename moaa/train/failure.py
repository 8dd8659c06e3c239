"""Why a training on a cluster ended: read from its pods and from what its ranks said, without I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from moaa.errors import MoaaError, TrainError
from moaa.kubernetes import pods
from moaa.kubernetes.kinds import Object
from moaa.train.log_reader import MEMORY, Listener

_LOST: Final = {
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
"""Reasons of a pod's end that say nothing about the training in it."""
_SIGNALS: Final = (137, 143)
"""Exit statuses of a container that somebody ended: SIGKILL without an OOM, SIGTERM."""
_PEERS: Final = re.compile(
    r"[Cc]onnection|closed by peer|[Gg]loo|NCCL|ProcessGroup|broken pipe|[Tt]imed? ?out", re.ASCII
)
"""What a rank says when another one is gone."""
_STUCK: Final = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}


class Lost(TrainError):
    """A pod was taken away: another one goes on from the newest checkpoint."""


def error(
    name: str,
    seen: Sequence[Object],
    gone: set[str],
    heard: Mapping[str, Listener],
    said: str,
    logs: str,
) -> MoaaError:
    """The error of a training that failed; `Lost` where one of its pods was taken away, and that is
    the whole reason.

    `seen`: its pods as they were last seen. `gone`: uids of those that vanished before they ended.
    `heard`: the logs, by uid. `said`: the failed object's own condition. `logs`: the command that
    prints a pod's log, up to its name.
    """
    order = sorted(seen, key=lambda pod: (_failed_at(pod), pod["metadata"]["name"]))
    if killed := [pod for pod in order if "OOMKilled" in pods.death(pod)]:
        return TrainError(
            f"{name} failed.\n{_told(heard, killed[0])}{_words(killed[0])}\n  {MEMORY}"
        )
    talking = min((each for each in heard.values()), key=lambda each: each.said_first, default=None)
    own_words = talking is not None and any(_own(each) for each in talking.errors)
    if "DeadlineExceeded" in said and not own_words:
        return TrainError(
            f"{name} did not end before its deadline.\n{_told(heard, order[0]) if order else ''}  "
            f"{said}"
        )
    failed = [pod for pod in order if _crashed(heard, pod)]
    missed = talking is not None and bool(talking.errors) and not failed
    lost = [pod for pod in order if _lost(pod, order, gone, tie=missed)]
    if lost and not own_words:
        why = pods.death(lost[0]) or "it was deleted"
        return Lost(f"{name} lost pod {lost[0]['metadata']['name']}: {why}.")
    failed += [pod for pod in order if pods.death(pod)]
    uid = next((uid for uid, each in heard.items() if each is talking), "") if own_words else ""
    pod = next(
        (pod for pod in seen if pod["metadata"]["uid"] == uid), failed[0] if failed else None
    )
    if pod is None:
        return TrainError(f"{name} failed: {said}.")
    listener = heard.get(pod["metadata"]["uid"])
    if listener is None:
        return TrainError(f"{name} failed: {said}.\n{_words(pod)}")
    found = listener.failure(None, f"{logs}{pod['metadata']['name']}")
    return type(found)(f"{found}\n{_words(pod)}")


def stuck(pod: Object) -> str:
    """Why a container of this pod cannot start, where waiting hardly helps; empty otherwise."""
    for container in pod.get("status", {}).get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            return pods.waits_for(pod, 0.0)
    return ""


def over(pod: Object) -> bool:
    """Whether the pod has ended, one way or the other."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _own(said: Mapping[str, Any]) -> bool:
    """Whether a rank failed of something of its own, and not of another rank's end."""
    return not (
        said["type"]
        in (
            "RuntimeError",
            "ConnectionError",
            "DistBackendError",
            "DistNetworkError",
            "DistStoreError",
            "ConnectionResetError",
            "BrokenPipeError",
            "Terminated",
            "SignalException",
        )
        and _PEERS.search(f"{said['type']} {said['message']}")
    )


def _lost(pod: Object, order: Sequence[Object], gone: set[str], *, tie: bool) -> bool:
    """Whether it was taken away, and not just cleaned up after another one failed.

    `tie`: what to think of a deletion in the very second of that failure.
    """
    status = pod.get("status", {})
    if any(
        each["type"] == "DisruptionTarget" and each["status"] == "True"
        for each in status.get("conditions") or []
    ):
        return True
    if status.get("reason") in _LOST:
        return True
    deleted = _deleted_at(pod)
    if deleted is None:
        return pod["metadata"]["uid"] in gone or _ended_by_others(pod)
    if _failed_at(pod) < deleted:
        return False
    # Its own failure after that is of the SIGTERM.
    failed = min(
        (_failed_at(other) for other in order if other is not pod and not _ended_by_others(other)),
        default=math.inf,
    )
    return deleted < failed or (tie and deleted == failed)


def _ended_by_others(pod: Object) -> bool:
    return any(
        ((each.get("state") or {}).get("terminated") or {}).get("exitCode") in _SIGNALS
        for each in pod.get("status", {}).get("containerStatuses") or []
    )


def _crashed(heard: Mapping[str, Listener], pod: Object) -> bool:
    """Whether torchrun says that a signal ended a rank (SIGSEGV, NCCL's abort), in a pod that
    nobody deleted."""
    listener = heard.get(pod["metadata"]["uid"])
    return listener is not None and bool(listener.killed) and _deleted_at(pod) is None


def _failed_at(pod: Object) -> float:
    """When the first of its containers failed; infinity where none did."""
    ends = [
        _time(ended.get("finishedAt"))
        for each in pod.get("status", {}).get("containerStatuses") or []
        if (ended := (each.get("state") or {}).get("terminated")) and ended.get("exitCode")
    ]
    return min(ends, default=math.inf)


def _deleted_at(pod: Object) -> float | None:
    """When somebody asked for its deletion."""
    at = pod["metadata"].get("deletionTimestamp")
    return _time(at) - (pod["metadata"].get("deletionGracePeriodSeconds") or 0) if at else None


def _time(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else math.inf


def _told(heard: Mapping[str, Listener], pod: Object) -> str:
    listener = heard.get(pod["metadata"]["uid"])
    return f"{listener.tail}\n" if listener and listener.tail else ""


def _words(pod: Object) -> str:
    return f"  Pod {pod['metadata']['name']}: {pods.death(pod) or 'ended without an error'}."
