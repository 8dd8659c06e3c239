"""What the two stages that train have in common: a job for the launcher, and its result adopted as
the stage's output."""

from __future__ import annotations

from moaa.artifacts import Artifact, File
from moaa.recipe.schema import Store, Training
from moaa.stage import Work, timed
from moaa.train.job import Job


def train(
    work: Work, kind: str, numbers: Training, *, base: str, revision: str | None, data: Artifact
) -> None:
    """Train `base` on `data`; the model's files, already under the output's address, become the
    artifact."""
    from moaa.train import (
        launch,
    )  # only where a training starts: the other stages import this file too

    launcher = work.runtime.launcher
    job = Job(
        kind=kind,
        numbers=numbers,
        base=base,
        revision=revision,
        data=data.uri,
        output=work.out.uri,
        store=_where(work),
        device=launcher.device,
        checkpoint_minutes=launcher.checkpoint_minutes,
    )
    with timed(work.ledger, "training"):
        result = launch.run(job, work.runtime, work.pools, work.store, work.ledger, work.progress)
    work.out.adopt([File(**file) for file in result["files"]])
    work.facts.update(result["facts"])
    work.ledger.rows.update(
        {
            "in": result["facts"]["rows"] + sum(result["facts"]["dropped"].values()),
            "kept": result["facts"]["rows"],
        }
    )
    work.ledger.rejected.update(result["facts"]["dropped"])


def _where(work: Work) -> Store:
    """The store as the training's processes find it: a cluster's pods have the Secret's keys, under
    their usual names."""
    own = {"access_key_env", "secret_key_env"} if work.runtime.launcher.kind != "process" else set()
    return Store(**work.where.model_dump(exclude=own))
