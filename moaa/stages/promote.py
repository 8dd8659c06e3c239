"""Puts the published version into production: first the idle slot of its serving, then the
production pointer."""

from __future__ import annotations

import os

from moaa import registry
from moaa.artifacts import Artifact
from moaa.gateway.canary_check import CanaryCheck, OtherModel
from moaa.gateway.places import place_of
from moaa.gateway.promotion import NotStarted, Promotion, RolledBack
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.names import RUN_ENV
from moaa.kubernetes.transport import OUTAGE_S
from moaa.progress.messages import log, say
from moaa.recipe.promote import Promote
from moaa.recipe.schema import Part, Recipe
from moaa.registry import Version, production
from moaa.registry.production import ProductionEntry
from moaa.stage import Context, stage
from moaa.stages.table import PROMOTE


class PromotePart(Part):
    """The result depends only on the version; these fields decide how it is done."""

    promote: Promote


def part_of(recipe: Recipe) -> PromotePart:
    """Return the stage's part of the recipe."""
    return PromotePart(promote=recipe.promote or Promote())


@stage(PROMOTE, part=part_of, content=lambda *_: {})
def promote(part: PromotePart, context: Context) -> None:
    """Put the published version into production, or say why not."""
    facts = context.inputs["version"].manifest.facts
    context.facts["promoted"] = None
    if not facts["published"]:
        context.facts["why"] = facts["why"]
        return
    context.again = True  # an act is repeated or checked each time: it cannot be reused
    version = Version(**facts["published"])
    now = production.read(context.store, version.name)
    taken_out = any(each.uri == version.uri for each in now.history[1:])
    if taken_out and now.current and now.current.uri != version.uri:
        context.facts["why"] = (
            f"{version.name} {version.version} was in production before and was taken out on "
            f"{now.current.since}: {now.current.why}. `moaa promote {version.name} "
            f"{version.version}` puts it back."
        )
        return
    try:
        way = _rolled_out(part.promote, version, context)
    except (RolledBack, NotStarted, OtherModel) as error:
        context.facts["why"] = f"rolled back: {error}"
        log.error(f"promote: {error}")
        return
    entry = ProductionEntry(
        version=version.version,
        uri=version.uri,
        why=f"the gate promoted it; {way}",
        run=os.environ.get(RUN_ENV, ""),
        decision=context.inputs["decision"].uri,
    )
    _, why = registry.put_into_production(context.store, version.name, entry)
    say(f"promote: {version.name} {version.version} is in production ({way})")
    if why:
        context.facts["registry"] = why
    context.ledger.rows["kept"] += 1
    context.progress.advance()
    context.facts["promoted"] = facts["published"]
    context.facts["why"] = entry.why


def _rolled_out(given: Promote, version: Version, context: Context) -> str:
    """Let the serving's idle slot take over, if the recipe has a serving;
    return in words what was done."""
    if not given.slots:
        return "the recipe has no slots: only the production pointer moves"
    namespace = given.namespace or context.recipe.runtime.cluster.namespace
    cluster = Cluster.connect(namespace, patience_s=OUTAGE_S)
    canary = (
        CanaryCheck.of(Artifact.open(context.store, version.uri))
        if given.canary
        else CanaryCheck(None)
    )
    said: list[str] = []
    Promotion(cluster, place_of(cluster, given.slots)).promote(
        context.store, version.uri, given, lambda urls: said.append(canary.check(urls))
    )
    return "; ".join(
        [f"slots of {given.slots} in steps of {', '.join(map(str, given.steps))} %", *said]
    )
