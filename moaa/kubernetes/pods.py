"""What a pod waits for or died of, and how a job ended, in words: read from status and events,
without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]
CREATING = "its containers are created"
"""Says nothing about why that takes long: the pod's newest event does."""
UNSCHEDULABLE = "cannot be scheduled"


def waits_for(pod: Object, now: float, event: str = "") -> str:
    """What keeps the pod from being ready, in words; empty when it is ready.

    `event`: its newest event's message, shown while the containers are created (image pull,
    volumes).
    """
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return "is being deleted"
    if status.get("phase") == "Failed":
        return death(pod) or "failed"
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") != "True":
        text = scheduled.get("message") or ""
        return f"{UNSCHEDULABLE}: {text}" if text else "waits for the scheduler"
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    said = next(
        filter(None, (_container(container, init, now) for init, container in _statuses(pod))), ""
    )
    said = said or ("is not ready yet" if status.get("containerStatuses") else CREATING)
    return f"{said}: {event}" if said == CREATING and event else said


def death(pod: Object, *, words: bool = True) -> str:
    """What a container of the pod, or the pod itself, ended of most recently; empty where nothing
    failed.

    `words`: with its last words, which may be the end of its log.
    """
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
    ends = []
    for _, container in _statuses(pod):
        for when in ("state", "lastState"):
            ended = (container.get(when) or {}).get("terminated")
            if ended and (ended.get("exitCode") or ended.get("reason") == "OOMKilled"):
                ends.append(
                    (
                        ended.get("finishedAt") or "",
                        f"container '{container['name']}' {_ended(ended, words)}",
                    )
                )
    return max(ends)[1] if ends else ""


def restarts(pod: Object) -> int:
    """How often a container of this pod was started again, or the whole pod given up (evicted)."""
    again = sum(container.get("restartCount", 0) for _, container in _statuses(pod))
    return again + (pod.get("status", {}).get("phase") == "Failed")


def started(pod: Object) -> bool:
    """Whether there is a log to read: a container runs or ran."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return any(
        state in (each.get("state") or {})
        for each in statuses
        for state in ("running", "terminated")
    )


def ended(job: Object) -> Object:
    """The condition that a Job or TrainJob ended with (`Complete` or `Failed`); empty while it has
    not."""
    conditions = job.get("status", {}).get("conditions") or []
    return next(
        (
            each
            for each in conditions
            if each["type"] in ("Complete", "Failed") and each["status"] == "True"
        ),
        {},
    )


def culprit(pod: Object) -> str | None:
    """The container whose log should say why the pod is not ready: the first that is not; None
    while none has started."""
    for _, container in _statuses(pod):
        ended = (container.get("state") or {}).get("terminated") or {}
        if not container.get("ready") and not (ended and ended.get("exitCode") == 0):
            started = container.get("restartCount", 0) or "waiting" not in (
                container.get("state") or {}
            )
            return container["name"] if started else None
    return None


def without_pods(deployment: Object) -> str:
    """Why a Deployment has no pod, in words: quota, Pod Security, a missing service account, or not
    yet."""
    for condition in deployment.get("status", {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return f"no pod can be created: {condition.get('message', '')}"
    if not deployment["spec"].get("replicas"):
        return "it is scaled to 0"
    return "no pod yet"


def summary(states: Iterable[str]) -> str:
    """The states of several pods in one line, each once: `2 pods: …; …`."""
    counts: dict[str, int] = {}
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    return "; ".join(f"{n} pods: {state}" if n > 1 else state for state, n in counts.items())


def told(events: Sequence[Object], most: int = 5) -> list[str]:
    """The newest events as lines, the oldest first; repeated ones once."""
    lines = [
        f"{event.get('reason', '')}: {' '.join((event.get('message') or '').split())}"
        for event in events
    ]
    return list(dict.fromkeys(reversed(lines)))[:most][::-1]


def _statuses(pod: Object) -> Iterator[tuple[bool, Object]]:
    status = pod.get("status", {})
    for container in status.get("initContainerStatuses") or []:
        yield True, container
    for container in status.get("containerStatuses") or []:
        yield False, container


def _container(container: Object, init: bool, now: float) -> str:
    state, name = container.get("state") or {}, container["name"]
    label = f"init container '{name}'" if init else f"container '{name}'"
    if waiting := state.get("waiting"):
        reason = waiting.get("reason") or "ContainerCreating"
        if reason in ("ContainerCreating", "PodInitializing"):
            return CREATING
        last = (container.get("lastState") or {}).get("terminated")
        why = f"the last {_ended(last)}" if last else waiting.get("message") or ""
        return f"{label} {reason}: {why}".rstrip(": ")
    if ended := state.get("terminated"):
        return "" if init and ended.get("exitCode") == 0 else f"{label} {_ended(ended)}"
    if not init and container.get("ready"):
        return ""
    if init and container.get("started") and container.get("ready"):
        return ""  # a sidecar
    return f"{label} {'runs' if init else 'is loading'}, {_age(state.get('running', {}).get('startedAt'), now)}"


def _ended(ended: Object, words: bool = True) -> str:
    reason = ended.get("reason") or "Error"
    said = " ".join((ended.get("message") or "").split()) if words else ""
    text = (
        f"ended with exit status {ended.get('exitCode')}"
        if reason == "Error"
        else f"was ended: {reason}"
    )
    return f"{text} ({said[:300]})" if said else text


def _age(started: str | None, now: float) -> str:
    if not started:
        return "just started"
    return f"for {max(0.0, now - datetime.fromisoformat(started).timestamp()):.0f} s"
