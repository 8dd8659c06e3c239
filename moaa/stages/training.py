"""What the two stages that train have in common: a job for the launcher, its result as output."""

from __future__ import annotations

from moaa.artifacts import Artifact, File
from moaa.recipe.schema import Dpo, Sft
from moaa.stage import Context
from moaa.train.job import Job, Launch


def train(
    context: Context, numbers: Sft | Dpo, *, base: str, revision: str | None, data: Artifact
) -> None:
    """Train `base` on `data`.

    The training writes the model's files below the output's address; here they become the artifact.
    """
    # Only here: both stages import this file, and starting a training imports a lot.
    from moaa.train import launch

    recipe = context.recipe
    job = Job(
        kind="dpo" if isinstance(numbers, Dpo) else "sft",
        numbers=numbers,
        base=base,
        revision=revision,
        data=data.uri,
        output=context.out.uri,
        store=recipe.store,
        device=recipe.runtime.launcher.device,
        checkpoint_minutes=recipe.runtime.launcher.checkpoint_minutes,
    )
    launched = Launch(job, recipe.runtime, recipe.pools)
    with context.ledger.timed("training"):
        result = launch.run(launched, context.store, context.ledger, context.progress)
    facts = result["facts"]
    context.out.adopt([File(**file) for file in result["files"]])
    context.facts.update(facts)
    kept, dropped = facts["rows"], facts["dropped"]
    context.ledger.rows.update({"in": kept + sum(dropped.values()), "kept": kept})
    context.ledger.rejected.update(dropped)
