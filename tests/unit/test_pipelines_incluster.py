"""A run that a Job in the cluster works on, followed from here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from moaa.pipelines import incluster
from moaa.pipelines.runner_job import of_run
from tests.support.incluster import (
    Said,
    after,
    background,
    demo,
    ended,
    name_of,
    put_pod,
    running,
)
from tests.support.kube_server import KubeServer
from tests.support.memory_store import MemoryStore

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("runs_on_kube")]


def pending(kube: KubeServer, why: str) -> Callable[[str], None]:
    condition = {"type": "PodScheduled", "status": "False", "message": why}
    return lambda run_id: put_pod(kube, run_id, 1, phase="Pending", conditions=[condition])


def test_a_run_from_its_start_to_its_report(
    kube: KubeServer, store: MemoryStore, said: Said
) -> None:
    def report(run_id: str) -> None:
        store.put(f"{store.root}/runs/{run_id}/report.html", b"<html>")

    background(
        kube,
        pending(kube, "0/6 nodes are available"),
        after(lambda: "0/6 nodes" in said()),
        running(kube, "prompts: 24 rows", "generate: 3/24"),
        after(lambda: "3/24" in said()),
        running(kube, "prompts: 24 rows", "generate: 3/24", "generate: 24/24"),
        report,
        ended(kube),
    )
    incluster.start(demo(), of_run("evaluate"))
    run_id = name_of(kube)
    lines = said().splitlines()
    assert lines[0] == f"run     {run_id}   (Job in namespace team)"
    assert [line for line in lines if line.startswith("waits")][-1].endswith(
        "cannot be scheduled: 0/6 nodes are available"
    )
    assert [line for line in lines if line.startswith(("prompts", "generate"))] == [
        "prompts: 24 rows",
        "generate: 3/24",
        "generate: 24/24",
    ]
    page = Path(".moaa/runs") / run_id / "report.html"
    assert lines[-1] == f"report: s3://moaa/demo/runs/{run_id}/report.html, copied to {page}"
    assert page.read_text() == "<html>"


def test_a_lost_pods_successor_is_followed(kube: KubeServer, said: Said) -> None:
    def lost(run_id: str) -> None:
        killed = {
            "terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "label: 10/90"}
        }  # the end of its log
        put_pod(
            kube, run_id, 1, phase="Failed", containerStatuses=[{"name": "runner", "state": killed}]
        )

    background(
        kube,
        running(kube, "label: 10/90"),
        after(lambda: "10/90" in said()),
        lost,
        running(kube, "label: 90/90", number=2),
        after(lambda: "90/90" in said()),
        ended(kube),
    )
    incluster.start(demo(), of_run("evaluate"))
    text = said()
    assert text.count("label: 10/90") == text.count("label: 90/90") == 1
    assert "-1 is gone: container 'runner' was ended: OOMKilled" in text


def test_an_api_server_that_is_restarted_is_waited_for(
    kube: KubeServer, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run_id: str) -> None:
        kube.fail(0, times=4)

    background(
        kube,
        running(kube, "one"),
        after(lambda: "one" in said()),
        broken,
        running(kube, "one", "two"),
        after(lambda: "two" in said()),
        ended(kube),
    )
    incluster.start(demo(), of_run("evaluate"))
    assert said().count("one\n") == 1


def test_a_run_that_is_over_is_followed_from_its_beginning(kube: KubeServer, said: Said) -> None:
    background(kube, running(kube, "a"), ended(kube))
    incluster.start(demo(), of_run("evaluate"))
    before = said().count("a\n")
    incluster.follow(name_of(kube), kube.cluster())
    assert said().count("a\n") == 2 * before
