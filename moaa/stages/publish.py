"""Makes an immutable version with a model card from a model that the gate promotes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from typing import Any

from moaa import registry
from moaa.artifacts import Artifact
from moaa.errors import RecipeError
from moaa.kubernetes.names import RUN_ENV
from moaa.progress.messages import say
from moaa.recipe.load import text_of
from moaa.recipe.publish import Publish
from moaa.recipe.schema import Part, Recipe
from moaa.registry import Version, canary
from moaa.registry.canary import Canary
from moaa.registry.kubeflow import FACT
from moaa.stage import Context, stage
from moaa.stages.table import PUBLISH

AWAY = "registries and hubs that do not show it"


class PublishPart(Part):
    """What the version depends on, besides the model, its scores and the decision."""

    publish: Publish
    licences: dict[str, Any]
    """The licences of the models, by name: the card depends on them."""


def part_of(recipe: Recipe) -> PublishPart:
    """Return the stage's part of the recipe."""
    found = registry.findings(recipe)
    return PublishPart(
        publish=recipe.publish or Publish(),
        licences={use.model: use.licence for use in found.uses},
    )


@stage(PUBLISH, part=part_of, content=lambda *_: {})
def publish(part: PublishPart, context: Context) -> None:
    """Publish the candidate if the gate promotes it; else say why not."""
    decision = context.inputs["decision"].manifest.facts["decision"]
    if decision["verdict"] != "promote":
        context.facts["published"] = None
        context.facts["why"] = f"{decision['verdict']}: {decision['why']}"
        say(f"publish: nothing, since the gate's decision is {decision['verdict']}")
        return
    version = _version(part, context)
    licences = registry.findings(context.recipe)
    if reason := registry.refusal(context.recipe, licences):
        raise RecipeError(f"{version.name} is not published: {reason}")
    model = context.inputs[decision["candidate"]]
    text = text_of(context.recipe)
    rounds = registry.rounds(context.recipe, model, version, os.environ.get(RUN_ENV, ""))
    lineage = registry.lineage(
        context.recipe, text, model, context.inputs["scores"], decision, licences, rounds
    )
    texts = {
        "README.md": registry.card(context.recipe, version, lineage, licences),
        **_canary(context.inputs["scores"]),
        registry.LINEAGE: json.dumps(lineage, indent=1, ensure_ascii=False) + "\n",
    }
    facts: dict[str, Any] = {
        "lineage": f"{version.uri}/{registry.LINEAGE}",
        "model": model.fingerprint,
    }
    if "system_role" in model.manifest.facts:  # a server asks the version as it was trained
        facts["system_role"] = model.manifest.facts["system_role"]
    if len(rounds) > 1:  # a repeated run does not take them for other models
        facts["winners"] = [each["fingerprint"] for each in rounds[:-1]]
    if part.publish.registry:  # a later promotion updates it
        facts[FACT] = part.publish.registry.model_dump(mode="json")
    registry.write_version(version, model, texts, facts)
    if part.publish.data:
        registry.data_set.write_data_set(
            version,
            context.store,
            registry.data_set.sources(model),
            partial(registry.data_card, context.recipe, version, lineage, licences),
        )
        context.facts["data"] = registry.data_set.address(version)
    context.ledger.rows["kept"] += 1
    context.progress.advance()
    context.facts["published"] = asdict(version)
    say(f"publish: {version.name} {version.version}: {version.uri}")
    _show(part.publish, version, context)


def _version(part: PublishPart, context: Context) -> Version:
    """Return the version. Another model, other scores or another decision make another version.
    Where else it is shown does not matter, nor how many times that was tried."""
    name = part.publish.name or context.recipe.name
    alone = part.publish.model_copy(update={"data": False, "registry": None, "hub": None})
    made = publish.fingerprint(part.model_copy(update={"publish": alone}), context.inputs)[:12]
    return Version.of(context.store, name, made)


def _show(given: Publish, version: Version, context: Context) -> None:
    """Show the version in other places. A place that cannot be reached is reported, and the next
    attempt tries it again."""
    away: dict[str, str] = {}
    if given.registry:
        away["registry"] = registry.mirror(context.store, version.name, given.registry)
    if hub := given.hub:
        made = Artifact.open(context.store, version.uri)
        away["hub"] = registry.upload(hub, hub.repository, "model", made)
        if hub.data_repository:
            data = Artifact.open(context.store, registry.data_set.address(version))
            away["hub (data)"] = registry.upload(hub, hub.data_repository, "dataset", data)
    for place, why in away.items():
        if why:
            context.facts[place] = why
            context.ledger.events[f"{AWAY}: {place}"] += 1
            context.again = True


def _canary(scores: Artifact) -> dict[str, str]:
    """Return the canary set of the evaluation as a file of the version, if there is one."""
    found = Canary.of_rows(scores.rows("canary"))
    return {canary.FILE: found.text()} if found else {}
