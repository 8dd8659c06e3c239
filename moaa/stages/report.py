"""The end of a run, good or bad: releases what the run holds on the cluster,
and writes its report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from moaa import records, report
from moaa.errors import MoaaError
from moaa.lifeline import RUNNER_ENV
from moaa.progress.messages import log, say, show
from moaa.recipe.schema import Recipe
from moaa.stages.table import stages
from moaa.store import Store
from moaa.task import Task

if TYPE_CHECKING:
    from moaa.kubernetes.api import Cluster


def main(task: Task, output: str = "") -> None:
    """Release what the run holds; write `<root>/runs/<run id>/report.html` on S3, and `output`.

    If no report can be made, `output` is a page that says why, and no error is raised: the run's
    own stages have failed for the same reason. Only an outside fault fails the task, which is then
    tried again.
    """
    show()
    status = 0
    try:
        loaded = task.load().recipe
        give_back(loaded, task.run_id)
        # The run's other tasks have reached the store, so this one waits for it.
        html = write(Store.of(loaded.store, reached=True), task.run_id)
    except MoaaError as error:
        log.error(f"there is no report: {error}")
        html = report.failure(task.run_id, str(error))
        status = error.exit_status if error.outside else 0
    if output:
        Path(output).write_text(html, encoding="utf-8", errors="replace")
    if status:
        raise SystemExit(status)


@contextmanager
def renewed(task: Task) -> Iterator[None]:
    """Rewrite the run's report after a stage has ended, if there is a report already.

    Kubeflow's Retry runs stages again, but not the report, which has succeeded.
    """
    try:
        yield
    finally:
        if RUNNER_ENV not in os.environ:  # a local run always writes its report at its end
            _renew(task)


def _renew(task: Task) -> None:
    try:
        store = Store.of(task.load().recipe.store)
        if store.exists(_address(store, task.run_id)):
            write(store, task.run_id)
    except Exception as error:  # any error: the stage's own result counts
        log.warning(f"the run's report was not rewritten: {error}")


def write(store: Store, run_id: str) -> str:
    """Write the report of the run's records to the store; return it as HTML."""
    html = report.build(report.RunView.of(records.read(store, run_id), stages()), store)
    store.put(_address(store, run_id), html.encode(errors="replace"))
    return html


def _address(store: Store, run_id: str) -> str:
    return f"{store.root}/runs/{run_id}/report.html"


def give_back(recipe: Recipe, run_id: str, cluster: Cluster | None = None) -> None:
    """Release the run's leases on engines, and delete its unfinished trainings.

    Failures are shown, never raised: leases run out by themselves, and the reaper stops what has no
    holder.
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
