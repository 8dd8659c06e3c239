"""What the two stages that train have in common: a job for the launcher, and its result adopted as
the stage's output."""

from __future__ import annotations

from moaa.artifacts import Artifact, File
from moaa.recipe.schema import StoreAddress, Training
from moaa.stage import Context
from moaa.train.job import Job


def train(
    context: Context,
    kind: str,
    numbers: Training,
    *,
    base: str,
    revision: str | None,
    data: Artifact,
) -> None:
    """Train `base` on `data`; the model's files, already under the output's address, become the
    artifact."""
    from moaa.train import (
        launch,
    )  # only where a training starts: the other stages import this file too

    launcher = context.recipe.runtime.launcher
    job = Job(
        kind=kind,
        numbers=numbers,
        base=base,
        revision=revision,
        data=data.uri,
        output=context.out.uri,
        store=_where(context),
        device=launcher.device,
        checkpoint_minutes=launcher.checkpoint_minutes,
    )
    with context.ledger.timed("training"):
        result = launch.run(
            job,
            context.recipe.runtime,
            context.recipe.pools,
            context.store,
            context.ledger,
            context.progress,
        )
    context.out.adopt([File(**file) for file in result["files"]])
    context.facts.update(result["facts"])
    context.ledger.rows.update(
        {
            "in": result["facts"]["rows"] + sum(result["facts"]["dropped"].values()),
            "kept": result["facts"]["rows"],
        }
    )
    context.ledger.rejected.update(result["facts"]["dropped"])


def _where(context: Context) -> StoreAddress:
    """The store as the training's processes find it: a cluster's pods have the Secret's keys, under
    their usual names."""
    own = (
        {"access_key_env", "secret_key_env"}
        if context.recipe.runtime.launcher.kind != "process"
        else set()
    )
    return StoreAddress(**context.recipe.store.model_dump(exclude=own))
