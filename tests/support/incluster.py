"""The Job of a run, its pods and logs, as a cluster has them one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from moaa.kubernetes.kinds import JOBS, PODS
from moaa.pipelines import incluster
from moaa.recipe.load import Loaded, load_file
from tests.support.kube_server import KubeServer
from tests.support.paths import RECIPES
from tests.support.waiting import until


class Said:
    """All that was printed until now, however often it is asked."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._text = capsys, ""

    def __call__(self) -> str:
        self._text += self._capsys.readouterr().out
        return self._text


def followed(kube: KubeServer, monkeypatch: pytest.MonkeyPatch) -> KubeServer:
    """The cluster whose runs are followed, without pauses."""
    monkeypatch.setattr(incluster, "POLL_S", 0.01)
    monkeypatch.setattr(incluster, "connect", lambda *_, **__: kube.cluster())
    return kube


def demo(*sets: str) -> Loaded:
    kinds = ["runtime.engines.kind=kubernetes", "runtime.launcher.kind=trainer"]
    return load_file(RECIPES / "demo.yaml", [*kinds, *sets])


def name_of(kube: KubeServer) -> str:
    return until(lambda: [name for kind, name in list(kube.objects) if kind == "jobs"])[0]


def background(kube: KubeServer, *steps: Callable[[str], None]) -> None:
    """Do these one after the other once the Job is there."""

    def act() -> None:
        run_id = name_of(kube)
        for step in steps:
            step(run_id)

    threading.Thread(target=act, daemon=True).start()


def put_pod(kube: KubeServer, run_id: str, number: int, **status: Any) -> None:
    metadata = {
        "name": f"{run_id}-{number}",
        "labels": {"job-name": run_id},
        "creationTimestamp": f"2026-01-01T00:0{number}:00Z",
    }
    kube.put(PODS, {"metadata": metadata, "spec": {}, "status": status})


def running(kube: KubeServer, *lines: str, number: int = 1) -> Callable[[str], None]:
    def act(run_id: str) -> None:
        text = "".join(f"2026-01-01T0{number}:00:0{i}.5Z {line}\n" for i, line in enumerate(lines))
        kube.logs[f"{run_id}-{number}", "runner", False] = text
        put_pod(
            kube,
            run_id,
            number,
            phase="Running",
            containerStatuses=[{"name": "runner", "state": {"running": {}}}],
        )

    return act


def ended(kube: KubeServer, kind: str = "Complete", message: str = "") -> Callable[[str], None]:
    def act(run_id: str) -> None:
        job = kube.find(JOBS, run_id)
        kube.put(
            JOBS,
            {
                **job,
                "status": {"conditions": [{"type": kind, "status": "True", "message": message}]},
            },
        )

    return act


def after(look: Callable[[], bool]) -> Callable[[str], None]:
    def wait(run_id: str) -> None:
        until(look)

    return wait
