"""Start a training wherever the recipe says, follow it to its end, and return its result.

A launcher returns when `result.json` should be there, and raises what the training failed of:
`process` starts the ranks on this machine, `cluster` as a TrainJob or an Indexed Job on Kubernetes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from moaa.errors import TrainError
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Pool, Runtime
from moaa.store import Missing, Store
from moaa.train import cluster, process
from moaa.train.job import Job

Start = Callable[[Job, Runtime, Mapping[str, Pool], Ledger, Progress], None]

LAUNCHERS: dict[str, Start] = {
    "process": process.start,
    "trainer": cluster.start,
    "job": cluster.start,
}


def run(
    job: Job,
    runtime: Runtime,
    pools: Mapping[str, Pool],
    store: Store,
    ledger: Ledger,
    progress: Progress,
) -> dict[str, Any]:
    """The content of `result.json`: `files` under `job.output`, and `facts`. What is trained
    already is not trained again.

    Raises TrainError with a rank's own words where the training failed.
    """
    result = _result(job, store)
    if result is None:
        store.put(f"{job.output}/job.json", job.model_dump_json(indent=1).encode())
        LAUNCHERS[runtime.launcher.kind](job, runtime, pools, ledger, progress)
        result = _result(job, store)
        if result is None:
            raise TrainError(
                f"The training ended without an error, but left no {job.result}. Run it again."
            )
    store.delete_prefix(f"{job.output}/checkpoints")
    ledger.events.update({what: count for what, count in _events(result["facts"]).items() if count})
    return result


def _result(job: Job, store: Store) -> dict[str, Any] | None:
    try:
        return json.loads(store.get(job.result))
    except Missing:
        return None


def _events(facts: dict[str, Any]) -> dict[str, int]:
    """What did not go as planned, for the ledger."""
    return {
        "system messages merged into the first user turn": facts["merged_system"],
        "trainings resumed from a checkpoint": facts["resumed_from_step"] is not None,
        "checkpoints given up": facts["checkpoints_failed"],
        "checkpoints not used: damaged, or of other ranks or precision": facts[
            "checkpoint_unusable"
        ],
        "trained in float32: the CPU has no bfloat16": facts["precision"] == "float32",
    }
