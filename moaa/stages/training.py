"""Code that the two training stages share: a job for the launcher, and its result as output."""

from __future__ import annotations

from moaa.artifacts import Artifact, File
from moaa.recipe.engine_args import answer_args
from moaa.recipe.schema import Dpo, Recipe, Sft
from moaa.stage import Context
from moaa.train.job import Job, Launch
from moaa.weights.tokenizer import TemplateArgs

TEMPLATE_ARGS = ("--chat-template", "--default-chat-template-kwargs")


def template_args(recipe: Recipe) -> tuple[list[str], ...]:
    """Return the target's engine arguments that decide which text is trained."""
    given = answer_args(recipe.models[recipe.target].engine_args)
    return tuple(arg for arg in given if arg[0].partition(".")[0] in TEMPLATE_ARGS)


def train(
    context: Context, numbers: Sft | Dpo, *, base: str, revision: str | None, data: Artifact
) -> None:
    """Train `base` on `data`.

    The training writes the model's files below the output's address; here they become the artifact.
    """
    # Imported late: both stages import this file, and starting a training imports a lot.
    from moaa.train import launch

    recipe = context.recipe
    template = TemplateArgs.of(recipe.models[recipe.target])
    job = Job(
        kind="dpo" if isinstance(numbers, Dpo) else "sft",
        numbers=numbers,
        base=base,
        revision=revision,
        data=data.uri,
        output=context.out.uri,
        store=recipe.store,
        device=recipe.runtime.launcher.device,
        chat_template=template.text,
        template_variables=template.variables,
        max_rejected_share=recipe.runtime.max_rejected_share,
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
    if held := facts.get("validation"):
        context.ledger.rows["in"] += held["rows"] + sum(held["dropped"].values())
        context.ledger.rows["held out"] += held["rows"]
        context.ledger.rejected.update(held["dropped"])
        if held.get("lost_step") is not None:
            context.ledger.events["trainings that lost their best weights when they resumed"] += 1
