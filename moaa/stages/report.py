"""The end of a run, good or bad: release what it holds on the cluster, and write its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moaa import records, report
from moaa.errors import MoaaError
from moaa.progress.messages import log, say, show
from moaa.recipe.schema import Recipe
from moaa.stages.table import stages
from moaa.store import Store
from moaa.task import Task

if TYPE_CHECKING:
    from moaa.kubernetes.api import Cluster


def main(task: Task, output: str = "") -> None:
    """Release what the run holds; write `<root>/runs/<run id>/report.html` on S3, and `output`.

    If there can be no report, `output` is a page that says why, and nothing is raised: the run's
    own stages have failed of it too. Only an outside fault fails the task, which is tried again.
    """
    show()
    status = 0
    try:
        loaded = task.load().recipe
        give_back(loaded, task.run_id)
        store = Store.of(loaded.store)
        html = report.build(report.Run.of(records.read(store, task.run_id), stages()), store)
        store.put(f"{store.root}/runs/{task.run_id}/report.html", html.encode(errors="replace"))
    except MoaaError as error:
        log.error(f"there is no report: {error}")
        html = report.failure(task.run_id, str(error))
        status = error.exit_status if error.outside else 0
    if output:
        Path(output).write_text(html, encoding="utf-8", errors="replace")
    if status:
        raise SystemExit(status)


def give_back(recipe: Recipe, run_id: str, cluster: Cluster | None = None) -> None:
    """Release the run's leases on engines, and delete its unfinished trainings.

    What fails is shown, never raised: leases run out by themselves, and the reaper stops what
    nobody holds.
    """
    runtime = recipe.runtime
    if runtime.engines.kind != "kubernetes" and runtime.launcher.kind == "process":
        return
    from moaa.kubernetes.api import Cluster
    from moaa.kubernetes.leases import LEASE_S
    from moaa.kubernetes.reaper import end_run

    try:
        for line in end_run(cluster or Cluster.connect(runtime.cluster.namespace), run_id):
            say(line)
    except MoaaError as error:
        say(
            "what the run holds on the cluster could not be released; its leases run out within "
            f"{LEASE_S:.0f} s. {error}"
        )
