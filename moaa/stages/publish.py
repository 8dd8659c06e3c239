"""What the gate promotes becomes an immutable version with a model card."""

from __future__ import annotations

import json
from typing import Any

from moaa import registry
from moaa.errors import RecipeError
from moaa.recipe.publish import Publish
from moaa.recipe.read import dump
from moaa.recipe.schema import Part, Recipe
from moaa.registry import Version
from moaa.stage import Context, stage
from moaa.stages.table import PUBLISH


class PublishPart(Part):
    """What the version depends on, besides the model, its scores and the decision."""

    publish: Publish
    licences: dict[str, Any]
    """The licences of the models, by name: what the card says follows from them."""


def part_of(recipe: Recipe) -> PublishPart:
    """The stage's part of the recipe."""
    found = registry.findings(recipe)
    return PublishPart(
        publish=recipe.publish or Publish(),
        licences={use.model: use.licence for use in found.uses},
    )


@stage(PUBLISH, part=part_of, content=lambda recipe, store: {})
def publish(part: PublishPart, context: Context) -> None:
    """Publish the candidate if the gate promotes it; else say why not."""
    decision = context.inputs["decision"].manifest.facts["decision"]
    name = part.publish.name or context.recipe.name
    if decision["verdict"] != "promote":
        context.facts["published"] = None
        context.facts["why"] = f"{decision['verdict']}: {decision['why']}"
        return
    licences = registry.findings(context.recipe)
    if reason := registry.refusal(context.recipe, licences):
        raise RecipeError(f"{name} is not published: {reason}")
    made = context.out.uri.rpartition("/")[2][:12]
    version = Version(name, made, f"{context.store.root}/{registry.MODELS}/{name}/{made}")
    model = context.inputs[decision["candidate"]]
    text = dump(context.recipe.model_dump(mode="json", exclude_defaults=True))
    lineage = registry.lineage(
        context.recipe, text, model, context.inputs["scores"], decision, licences
    )
    texts = {
        "README.md": registry.card(context.recipe, version, lineage, licences),
        "lineage.json": json.dumps(lineage, indent=1, ensure_ascii=False) + "\n",
    }
    registry.write_version(version, model, texts, {"lineage": f"{version.uri}/lineage.json"})
    context.ledger.rows["kept"] += 1
    context.facts["published"] = {"name": name, "version": made, "uri": version.uri}
