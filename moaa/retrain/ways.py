"""Where the run of a retraining takes place, and how a started run is found again.

Local        in this process; after a kill the same run id continues
OnKubeflow   found by its name if the command was killed before it knew the id
InCluster    a Job whose name was chosen before
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from moaa.kubernetes import pods
from moaa.kubernetes.errors import Conflict, NotFound
from moaa.kubernetes.kinds import JOBS
from moaa.pipelines import incluster, local, runner_job, submit
from moaa.recipe.load import Loaded
from moaa.store import Store

RunState = Literal["none", "paused", "running", "done", "over"]
"""none      there is no such run
paused    it stands still until a command continues it
running   it goes on without a command
done      it has succeeded
over      it has ended otherwise"""
Noted = Callable[[str], None]
"""Called with the run's id as soon as it is known."""


class Way(Protocol):
    """A place where runs can take place."""

    @property
    def waits(self) -> bool:
        """Whether the command stays until the run is over."""
        ...

    def about(self) -> dict[str, str]:
        """Return what identifies the place: runs of another place are not looked for."""
        ...

    def state(self, run: str, label: str) -> tuple[str, RunState]:
        """Return the id and the state of a started run; `run` is empty if the id is not known."""
        ...

    def begin(self, loaded: Loaded, label: str, noted: Noted) -> None:
        """Start the run and, if this way waits, follow it. Raises RunFailed."""
        ...

    def go_on(self, loaded: Loaded, run: str) -> None:
        """Follow an existing run, or continue it here. Raises RunFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """This machine. Runs only go on while a command runs."""

    waits: bool = True

    def about(self) -> dict[str, str]:
        """Return what identifies the place."""
        return {"kind": "local"}

    def state(self, run: str, label: str) -> tuple[str, RunState]:
        """Return the run's id, its label. No other process works on it: this one holds the lock."""
        return run or label, "paused"

    def begin(self, loaded: Loaded, label: str, noted: Noted) -> None:
        """Run the pipeline; its label is its id."""
        noted(label)
        local.run(loaded, None, label)

    def go_on(self, loaded: Loaded, run: str) -> None:
        """Continue: finished stages are reused."""
        local.run(loaded, None, run)


@dataclass(frozen=True, slots=True)
class OnKubeflow:
    """Kubeflow Pipelines."""

    host: str
    experiment: str
    namespace: str | None
    waits: bool

    def about(self) -> dict[str, str]:
        """Return what identifies the place."""
        return {
            "kind": "kubeflow",
            "host": self.host.rstrip("/"),
            "namespace": self.namespace or "",
        }

    def state(self, run: str, label: str) -> tuple[str, RunState]:
        """Ask Kubeflow; a run without a known id is searched by its name."""
        found = run or submit.named(self.host, self.namespace, label)
        if not found:
            return "", "none"
        state = submit.state_of(self.host, self.namespace, found)
        if state == "UNKNOWN":
            return "", "none"
        if state not in submit.ENDED:
            return found, "running"
        return found, "done" if state == "SUCCEEDED" else "over"

    def begin(self, loaded: Loaded, label: str, noted: Noted) -> None:
        """Submit the run under its label."""
        run = submit.submit(
            loaded, self.host, None, self.experiment, self.namespace, run_name=label
        )
        noted(run)
        if self.waits:
            self.go_on(loaded, run)

    def go_on(self, loaded: Loaded, run: str) -> None:
        """Follow the run."""
        submit.watch(self.host, self.namespace, run, Store.of(loaded.recipe.store))


@dataclass(frozen=True, slots=True)
class InCluster:
    """A Job of a cluster, without Kubeflow."""

    namespace: str | None
    waits: bool

    def about(self) -> dict[str, str]:
        """Return what identifies the place."""
        return {"kind": "in-cluster", "namespace": self.namespace or ""}

    def state(self, run: str, label: str) -> tuple[str, RunState]:
        """Look at the Job of that name."""
        name = run or label
        try:
            job = incluster.connect(namespace=self.namespace).get(JOBS, name)
        except NotFound:
            return "", "none"
        states: dict[str, RunState] = {"Complete": "done", "Failed": "over"}
        return name, states.get(pods.ended(job).get("type", ""), "running")

    def begin(self, loaded: Loaded, label: str, noted: Noted) -> None:
        """Create the Job; its name is the label."""
        noted(label)
        cluster = incluster.connect(loaded, self.namespace)
        with contextlib.suppress(Conflict):  # an answer was lost: the Job is ours
            incluster.create(loaded, runner_job.of_run(), cluster, label)
        if self.waits:
            self.go_on(loaded, label)

    def go_on(self, loaded: Loaded, run: str) -> None:
        """Follow the Job's log."""
        incluster.follow(run, incluster.connect(loaded, self.namespace))
