"""Says in words what a pod waits for or why it failed, and how a job ended.

Read from status and events, without I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from moaa.kubernetes.kinds import Object

CREATING = "its containers are created"
"""The state does not say why that takes long; the pod's newest event does."""
UNSCHEDULABLE = "cannot be scheduled"
NOT_SCHEDULED = "FailedScheduling"
"""The reason of the scheduler's events."""


def waits_for(pod: Object, now: float, event: str = "") -> str:
    """Return why the pod is not ready, in words; an empty text if it is.

    `event`: its newest event, shown while the containers are created (image pull, volumes), unless
    it is from before the pod was scheduled.
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
    states = (_container(container, init, now) for init, container in _statuses(pod))
    state = next(filter(None, states), "")
    state = state or ("is not ready yet" if status.get("containerStatuses") else CREATING)
    newer = event and not event.startswith(NOT_SCHEDULED)
    return f"{state}: {event}" if state == CREATING and newer else state


def death(pod: Object, *, message: bool = True) -> str:
    """Return why a container, or the whole pod, failed most recently; an empty text if none did.

    `message`: with its termination message, which may be the end of its log.
    """
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
    ends = []
    for _, container in _statuses(pod):
        for when in ("state", "lastState"):
            ended = (container.get(when) or {}).get("terminated")
            if ended and (ended.get("exitCode") or ended.get("reason") == "OOMKilled"):
                why = f"container '{container['name']}' {_ended(ended, message)}"
                ends.append((ended.get("finishedAt") or "", why))
    return max(ends)[1] if ends else ""


def restarts(pod: Object) -> int:
    """Return how many times a container was restarted;
    a failed pod (evicted) counts as one more."""
    again = sum(container.get("restartCount", 0) for _, container in _statuses(pod))
    evicted = bool(pod.get("status", {}).get("phase") == "Failed")
    return int(again) + evicted


def started(pod: Object) -> bool:
    """Return whether there is a log to read: a container runs or has run."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return any(
        state in (each.get("state") or {})
        for each in statuses
        for state in ("running", "terminated")
    )


def ended(job: Object) -> Object:
    """Return the condition that a Job or TrainJob ended with (`Complete`, `Failed`); {} before."""
    conditions = job.get("status", {}).get("conditions") or []
    over = (each for each in conditions if each["type"] in ("Complete", "Failed"))
    return next((each for each in over if each["status"] == "True"), {})


def failing_container(pod: Object) -> str | None:
    """Return the first container that is not ready: its log should say why the pod is not.

    None if that container has not started, so that there is no log.
    """
    for _, container in _statuses(pod):
        ended = (container.get("state") or {}).get("terminated") or {}
        if not container.get("ready") and not (ended and ended.get("exitCode") == 0):
            waits = "waiting" in (container.get("state") or {})
            return None if waits and not container.get("restartCount", 0) else container["name"]
    return None


def why_no_pods(deployment: Object) -> str:
    """Return why a Deployment has no pod: a quota, Pod Security, no service account, or not yet."""
    for condition in deployment.get("status", {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return f"no pod can be created: {condition.get('message', '')}"
    if not deployment["spec"].get("replicas"):
        return "it is scaled to 0"
    return "no pod yet"


def summary(states: Iterable[str]) -> str:
    """Return the states of several pods in one line, each state once: `2 pods: …; …`."""
    counts: dict[str, int] = {}
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    return "; ".join(f"{n} pods: {state}" if n > 1 else state for state, n in counts.items())


def latest_events(events: Sequence[Object], most: int = 5) -> list[str]:
    """Return the latest events as lines, oldest first; a repeated one only once."""
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
    age = _age(state.get("running", {}).get("startedAt"), now)
    return f"{label} {'runs' if init else 'is loading'}, {age}"


def _ended(ended: Object, message: bool = True) -> str:
    reason = ended.get("reason") or "Error"
    text = f"was ended: {reason}"
    if reason == "Error":
        text = f"ended with exit status {ended.get('exitCode')}"
    last = " ".join((ended.get("message") or "").split()) if message else ""
    return f"{text} ({last[:300]})" if last else text


def _age(started: str | None, now: float) -> str:
    if not started:
        return "just started"
    return f"for {max(0.0, now - datetime.fromisoformat(started).timestamp()):.0f} s"
