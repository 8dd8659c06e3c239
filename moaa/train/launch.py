"""Starts a training as the recipe says, follows it to its end, and returns its result.

A launcher returns when `result.json` should exist, and raises the reason if the training failed.
`process` starts the ranks on this machine, `cluster` as a TrainJob or an Indexed Job on Kubernetes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from moaa.errors import TrainError
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.store import Missing, Store
from moaa.train import cluster, process
from moaa.train.job import Job, Launch
from moaa.train.objects import job_in_pods
from moaa.train.publish import tidy

LAUNCHERS: dict[str, Callable[[Launch, Ledger, Progress], None]] = {
    "process": process.start,
    "trainer": cluster.start,
    "job": cluster.start,
}


def run(launch: Launch, store: Store, ledger: Ledger, progress: Progress) -> dict[str, Any]:
    """Return the content of `result.json`: `files` below `job.output`, and `facts`.

    If the result already exists, nothing is trained. Raises TrainError, with the error that a rank
    reported, if the training failed.
    """
    if launch.launcher.kind != "process":
        launch = replace(launch, job=job_in_pods(launch.job))
    job = launch.job
    result = _result(job, store)
    if result is None:
        store.put(f"{job.output}/job.json", job.model_dump_json(indent=1).encode())
        LAUNCHERS[launch.launcher.kind](launch, ledger, progress)
        result = _result(job, store)
        if result is None:
            raise TrainError(
                f"The training ended without an error, but left no {job.result}. Run it again."
            )
    for done in (f"{job.output}/checkpoints", f"{job.output}/best"):
        tidy(done, partial(store.delete_prefix, done))
    ledger.events.update({what: count for what, count in _events(result["facts"]).items() if count})
    return result


def _result(job: Job, store: Store) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(store.get(job.result))
    except Missing:
        return None
    return found


def _events(facts: dict[str, Any]) -> dict[str, int]:
    """Return what did not go as planned, for the ledger."""
    unusable = "checkpoints not used: damaged, or of other ranks or precision"
    return {
        "system messages merged into the first user turn": facts["merged_system"],
        "trainings resumed from a checkpoint": facts["resumed_from_step"] is not None,
        "checkpoints given up": facts["checkpoints_failed"],
        unusable: facts["checkpoint_unusable"],
        "trained in float32: the CPU has no bfloat16": facts["precision"] == "float32",
        "conversations trained in several sequences: the template shows earlier answers "
        "differently": facts.get("split", 0),
        "cut answers trained without their end": facts.get("cut_answers", 0),
        "rows with control texts, kept as plain text": facts.get("control_texts", 0),
        "waits for the store with the finished model": facts.get("upload_waits", 0),
        **{
            f"answers not trained on: {reason}": count
            for reason, count in facts.get("answers_left_out", {}).items()
        },
    }
