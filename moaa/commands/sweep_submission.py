"""`moaa sweep --host` and `--in-cluster`: start a run of each variant, then return.

`.moaa/sweeps/NAME/runs.json` lists the runs. The comparison reads them, and the same command starts
only variants that have not succeeded or whose recipe has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from moaa import home, sweeps
from moaa.commands.pipeline import Kubeflow, kubeflow_needed
from moaa.kubernetes import pods
from moaa.kubernetes.errors import NotFound
from moaa.kubernetes.kinds import JOBS
from moaa.pipelines.runner_job import of_run
from moaa.progress.terminal import out
from moaa.recipe.load import Loaded
from moaa.sweeps.document import Variant

State = Literal["running", "done", "over"]
RUNS = "runs.json"
LONGEST_NAME = 38
"""The most characters of a variant's Job name before the time."""


class SweepBackend(Protocol):
    """A place where runs can be started."""

    def start(self, variant: Variant, until: str) -> str:
        """Start a run of the variant; return the run's id."""
        ...

    def state(self, run_id: str) -> State:
        """Return whether the run goes on, has succeeded, or ended otherwise (or is unknown)."""
        ...


def submit(sweep: sweeps.Sweep, fitting: Sequence[sweeps.Priced], place: SweepBackend) -> None:
    """Start a run of each variant that fits the budget, unless a run of an earlier command still
    counts. They run at the same time; a stage that two share is computed by the first that reaches
    it."""
    folder = home.HOME / "sweeps" / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    known = begun(folder)
    for each in fitting:
        variant, earlier = each.variant, known.get(each.variant.name)
        digest = hashlib.sha256(variant.loaded.text.encode()).hexdigest()
        if earlier and earlier["recipe"] == digest:
            state = place.state(earlier["run"])
            if state != "over":
                out(f"variant {variant.name}: run {earlier['run']} is {state}")
                continue
        out(f"variant {variant.name}:")
        known[variant.name] = {"run": place.start(variant, sweep.until), "recipe": digest}
        (folder / RUNS).write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    out(
        "The runs continue without this command. A stage that two of them share is computed by "
        "one; the other waits for it. `--compare` shows the results."
    )


def begun(folder: Path) -> dict[str, dict[str, str]]:
    """Return the runs that were started on a cluster, by the names of their variants."""
    try:
        found: dict[str, dict[str, str]] = json.loads((folder / RUNS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


class KubeflowBackend:
    """Runs on Kubeflow Pipelines, submitted in the way of `moaa submit`."""

    def __init__(self, kubeflow: Kubeflow) -> None:
        with kubeflow_needed():
            from moaa.pipelines import submit
        self._to, self._module = kubeflow, submit

    def start(self, variant: Variant, until: str) -> str:
        """Submit a run of the variant; return the run's id."""
        to = self._to
        return self._module.submit(variant.loaded, to.host, until, to.experiment, to.namespace)

    def state(self, run_id: str) -> State:
        """Return the state of a run on Kubeflow."""
        state = self._module.state_of(self._to.host, self._to.namespace, run_id)
        if state == "SUCCEEDED":
            return "done"
        return "over" if state in self._module.ENDED | {"UNKNOWN"} else "running"


class JobBackend:
    """Runs in Jobs, created in the way of `moaa run --in-cluster`."""

    def __init__(self, loaded: Loaded, namespace: str | None) -> None:
        with kubeflow_needed():
            from moaa.pipelines import incluster
        self._module, self._cluster = incluster, incluster.connect(loaded, namespace)

    def start(self, variant: Variant, until: str) -> str:
        """Create the Job of a run of the variant; return the run's id."""
        run_id = home.new_id(variant.run_id[:LONGEST_NAME].rstrip("-"))
        return self._module.create(variant.loaded, of_run(until), self._cluster, run_id)

    def state(self, run_id: str) -> State:
        """Return the state of a run's Job."""
        try:
            job = self._cluster.get(JOBS, run_id)
        except NotFound:
            return "over"
        states: dict[str, State] = {"Complete": "done", "Failed": "over"}
        return states.get(pods.ended(job).get("type", ""), "running")
