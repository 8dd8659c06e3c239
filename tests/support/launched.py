"""A launcher that follows its training on a cluster, and what the cluster says of the training."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import TRAIN_JOBS
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Launcher, Runtime
from moaa.train import cluster
from moaa.train.job import Launch
from moaa.train.pod_watch import Timing
from tests.support.jobs import JOB, NAME
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import holders

POD = f"{NAME}-node-0-0-x7"


COMPLETE = {"conditions": [{"type": "Complete", "status": "True", "message": "done"}]}


QUICK = Timing(poll_s=0.02, end_wait_s=2.0)


FAILED = {"conditions": [{"type": "Failed", "status": "True", "message": "jobset failed"}]}


def launch(**launcher: Any) -> Launch:
    runtime = Runtime(launcher=Launcher(**{"kind": "trainer", "ranks": 1, **launcher}))
    return Launch(JOB, runtime, {})


def connected(kube: KubeServer, monkeypatch: pytest.MonkeyPatch) -> KubeServer:
    """The cluster that a launcher connects to."""
    kube.cluster()  # imports the client now, which takes seconds on a busy machine
    monkeypatch.setattr(Cluster, "connect", lambda namespace=None, **how: kube.cluster(**how))
    return kube


class Running:
    """The launcher in a thread of its own, as a stage would run it."""

    def __init__(
        self, progress: Progress | None = None, timing: Timing = QUICK, **launcher: Any
    ) -> None:
        self.ledger, self.progress = Ledger(), progress or Progress.silent()
        self.error: BaseException | None = None
        self._launch, self._timing = launch(**launcher), timing
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            cluster.start(self._launch, self.ledger, self.progress, self._timing)
        except BaseException as error:
            self.error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> BaseException | None:
        self._thread.join(10)
        assert not self._thread.is_alive(), self.progress.view().note
        return self.error


def pod(
    uid="u1",
    *,
    name=POD,
    index="0",
    kind="jobset.sigs.k8s.io/jobset-name",
    state=None,
    phase="Running",
    **metadata,
):
    return {
        "metadata": {
            "name": name,
            "labels": {kind: NAME, "batch.kubernetes.io/job-completion-index": index},
            **metadata,
        },
        "spec": {"containers": [{"name": "node"}]},
        "status": {
            "phase": phase,
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{"name": "node", "state": state or {"running": {}}}],
        },
    }


def ended(code=1, reason="Error", at="2026-01-01T00:00:10Z"):
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at}}


def log(*lines):
    return "".join(f"2026-01-01T00:00:{n:02d}Z {line}\n" for n, line in enumerate(lines))


def there(kube, kind=TRAIN_JOBS):
    return (kind.plural, NAME) in kube.objects


def set_status(kube, status, kind=TRAIN_JOBS):
    kube.put(kind, {**kube.find(kind, NAME), "status": status})


def lease(kube, kind=TRAIN_JOBS):
    return holders(kube, kind, NAME)
