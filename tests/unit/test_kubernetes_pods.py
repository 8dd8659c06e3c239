"""A pod's state in words: what it waits for, what it died of, whose log explains it."""

from __future__ import annotations

from typing import Any

import pytest

from moaa.engines import diagnosis
from moaa.engines.deployment import addresses
from moaa.kubernetes import pods
from tests.support.fake_ensemble import crashed, deployment, ready, unschedulable

NOW = 1767225660.0  # 2026-01-01T00:01:00Z
SCHEDULED = [{"type": "PodScheduled", "status": "True"}]


def pod(name: str = "p", *, deleted: bool = False, **status: Any) -> dict[str, Any]:
    gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}
    return {"metadata": {"name": name, "uid": name, **gone}, "status": status}


def container(name: str = "vllm", **state: Any) -> dict[str, Any]:
    return {"name": name, "ready": False, "restartCount": 0, **state}


def running(*, init: list[dict[str, Any]] | None = None, main: dict[str, Any]) -> dict[str, Any]:
    return pod(
        phase="Pending",
        conditions=SCHEDULED,
        initContainerStatuses=init or [],
        containerStatuses=[main],
    )


STARTING = container(state={"waiting": {"reason": "PodInitializing"}})
FETCHING = container("fetch", state={"running": {"startedAt": "2026-01-01T00:00:18Z"}})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (pod(**ready()), ""),
        (pod(phase="Pending"), "waits for the scheduler"),
        (
            pod(**unschedulable("0/1 nodes are available")),
            "cannot be scheduled: 0/1 nodes are available",
        ),
        (pod(phase="Pending", conditions=SCHEDULED), "its containers are created: Pulling image"),
        (
            running(main=container(state={"waiting": {"reason": "ContainerCreating"}})),
            "its containers are created: Pulling image",
        ),
        (running(init=[FETCHING], main=STARTING), "init container 'fetch' runs, for 42 s"),
        (
            running(
                init=[container("fetch", state={"terminated": {"exitCode": 0}})], main=STARTING
            ),
            "its containers are created: Pulling image",
        ),
        (
            running(
                init=[container("fetch", state={"terminated": {"exitCode": 2, "reason": "Error"}})],
                main=STARTING,
            ),
            "init container 'fetch' ended with exit status 2",
        ),
        (
            running(main=container(state={"running": {"startedAt": "2026-01-01T00:00:00Z"}})),
            "container 'vllm' is loading, for 60 s",
        ),
        (
            running(
                main=container(
                    state={
                        "waiting": {
                            "reason": "ImagePullBackOff",
                            "message": 'Back-off pulling "x:1"',
                        }
                    }
                )
            ),
            "container 'vllm' ImagePullBackOff: Back-off pulling \"x:1\"",
        ),
        (
            pod(**crashed(2, 137, "OOMKilled")),
            "container 'vllm' CrashLoopBackOff: the last was ended: OOMKilled",
        ),
        (
            pod(**crashed(2, 7)),
            "container 'vllm' CrashLoopBackOff: the last ended with exit status 7",
        ),
        (pod(phase="Failed", reason="Evicted", message="low on memory"), "Evicted: low on memory"),
        (pod(deleted=True, **ready()), "is being deleted"),
    ],
)
def test_waits_for(found: dict[str, Any], said: str) -> None:
    assert pods.waits_for(found, NOW, "Pulling image") == said


def test_an_event_from_before_a_pod_was_scheduled_says_nothing_of_its_containers() -> None:
    creating = pod(phase="Pending", conditions=SCHEDULED)
    old = "FailedScheduling: 0/1 nodes are available"
    assert pods.waits_for(creating, NOW, old) == "its containers are created"


def test_death_is_the_newest() -> None:
    early = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-01T00:00:01Z"}}
    late = {
        "terminated": {"exitCode": 0, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:00:09Z"}
    }
    found = pod(containerStatuses=[container("a", lastState=late), container("b", state=early)])
    assert pods.death(found) == "container 'a' was ended: OOMKilled"
    assert pods.death(pod(**ready(3))) == ""
    said = {"terminated": {"exitCode": 3, "reason": "Error", "message": "no\nspace"}}
    assert (
        pods.death(pod(containerStatuses=[container(state=said)]))
        == "container 'vllm' ended with exit status 3 (no space)"
    )


def test_restarts_count_containers_and_lost_pods() -> None:
    assert pods.restarts(pod(**ready(2))) == 2
    assert pods.restarts(pod(phase="Failed", reason="Evicted")) == 1
    assert (
        pods.restarts(
            pod(
                initContainerStatuses=[container("f", restartCount=1)],
                containerStatuses=[container(restartCount=2)],
            )
        )
        == 3
    )


def test_whose_log_explains() -> None:
    assert pods.failing_container(pod(**crashed(1))) == "vllm"
    assert pods.failing_container(running(init=[FETCHING], main=STARTING)) == "fetch"
    done = container("fetch", state={"terminated": {"exitCode": 0}})
    assert (
        pods.failing_container(running(init=[done], main=STARTING)) is None
    )  # nothing has run that could say something
    assert pods.failing_container(pod(**ready())) is None


def test_a_deployment_without_pods() -> None:
    failing = [
        {
            "type": "ReplicaFailure",
            "status": "True",
            "message": 'pods "a-1" is forbidden: exceeded quota: gpus',
        }
    ]
    asked = {**deployment("moaa-a", "a", replicas=1), "status": {"conditions": failing}}
    assert (
        pods.why_no_pods(asked)
        == 'no pod can be created: pods "a-1" is forbidden: exceeded quota: gpus'
    )
    assert pods.why_no_pods(deployment("moaa-a", "a", replicas=1)) == "no pod yet"
    assert pods.why_no_pods(deployment("moaa-a", "a")) == "it is scaled to 0"


def test_a_model_in_one_line() -> None:
    up = deployment("moaa-a", "a", replicas=3)
    three = [
        pod("x", **unschedulable("full")),
        pod("y", **unschedulable("full")),
        pod("z", phase="Pending"),
    ]
    assert (
        diagnosis.state(up, three, {}, asking="")
        == "2 pods: cannot be scheduled: full; waits for the scheduler"
    )
    leaving = pod("w", deleted=True, **ready())
    assert diagnosis.state(up, [leaving, three[2]], {}, asking="") == "waits for the scheduler"
    assert diagnosis.state(up, [leaving], {}, asking="") == "is being deleted"
    assert (
        diagnosis.state(up, [pod(**ready())], {}, asking=" at http://10.0.0.1")
        == "ready; its first answer at http://10.0.0.1"
    )
    assert diagnosis.state(up, [], {}, asking="") == "no pod yet"


def test_events_once_and_the_newest_last() -> None:
    events = [{"reason": f"R{n % 3}", "message": f"m{n % 3}"} for n in range(7)]
    assert pods.latest_events(events) == ["R1: m1", "R2: m2", "R0: m0"]
    assert pods.latest_events(events, most=1) == ["R0: m0"]


def test_addresses_are_of_ready_pods() -> None:
    slices: list[dict[str, Any]] = [
        {
            "ports": [{"name": "metrics", "port": 9}, {"name": "http", "port": 8000}],
            "endpoints": [
                {
                    "addresses": ["10.0.0.1"],
                    "conditions": {"ready": True},
                    "targetRef": {"kind": "Pod", "name": "one"},
                },
                {
                    "addresses": ["10.0.0.2"],
                    "conditions": {"ready": False, "serving": True, "terminating": True},
                },
                {"addresses": ["fd00::3"], "conditions": {}},
            ],
        },
        {"ports": None, "endpoints": None},
        {"ports": [{"port": 8001}], "endpoints": [{"addresses": ["10.0.0.1"]}]},
    ]
    assert addresses(slices) == {
        "http://10.0.0.1:8000/v1": "one",
        "http://[fd00::3]:8000/v1": "",
        "http://10.0.0.1:8001/v1": "",
    }
