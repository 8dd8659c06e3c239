"""The gate: whether the trained model may replace the one in production."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moaa import gate as gates
from moaa.artifacts import Artifact
from moaa.benchmarks.judgements import members_of
from moaa.benchmarks.reasoning import Reasons
from moaa.benchmarks.table import BENCHMARKS
from moaa.errors import RecipeError
from moaa.progress.messages import say
from moaa.recipe.evaluation import BASE, HEAD_TO_HEAD, PRODUCTION
from moaa.recipe.gate import Gate
from moaa.recipe.rounds import start_of
from moaa.recipe.schema import Part, Recipe
from moaa.stage import Context, stage
from moaa.stages.evaluate import EvaluatePart
from moaa.stages.table import GATE


class GatePart(Part):
    """What the decision depends on, besides the scores."""

    gate: Gate
    preferences_judge: str
    """The judge that made the preferences, with the names of the first round: a winner that judges
    counts as its first model. Empty if another labeller made them."""


def part_of(recipe: Recipe) -> GatePart:
    """Return the stage's part of the recipe."""
    judge = recipe.label.judge_of(recipe.label.labeller) if recipe.prefers else None
    named = members_of(judge) if judge else ""
    first = named.replace(recipe.target, start_of(recipe.target))
    return GatePart(gate=recipe.gate or Gate(), preferences_judge=first)


def decide(part: GatePart, scores: Artifact) -> gates.Decision:
    """Return the decision that the rules give for an evaluation.

    Raises RecipeError if the candidate or the model that it must beat was not measured.
    """
    benchmarks: Mapping[str, Any] = scores.manifest.facts["benchmarks"]
    # A manifest leaves out default values.
    default = EvaluatePart.model_fields["contestants"].default
    named = scores.manifest.part.get("contestants", default)
    measured = scores.manifest.facts.get("contestants", named)
    candidate = part.gate.candidate
    other = part.gate.against or (PRODUCTION if PRODUCTION in measured else BASE)
    for name in (candidate, other):
        if name not in measured:
            raise RecipeError(
                f"gate: '{name}' was not measured; the evaluation has {', '.join(measured)}. Name "
                "one of these in gate.candidate and gate.against, or add it to "
                "evaluate.contestants and evaluate again."
            )
    known = {
        name: each
        for name in benchmarks
        if (each := BENCHMARKS.get(name)) and issubclass(each, Reasons)
    }
    missing = {
        name: reason
        for name, facts in benchmarks.items()
        if name in known or name == HEAD_TO_HEAD
        if (reason := why_missing(facts, candidate, other))
    }
    evidence = gates.evidence_of(
        scores.rows,
        candidate,
        other,
        reasoning={name: each.main for name, each in known.items() if name not in missing},
        missing=missing,
        same_judge=part.preferences_judge == _judges(benchmarks.get(HEAD_TO_HEAD) or {}),
    )
    return gates.decide(part.gate, evidence)


def why_missing(facts: Mapping[str, Any], candidate: str, other: str) -> str:
    """Return why a benchmark does not compare these two contestants; empty if it does.

    It failed completely, or the answers or judgements of one of the two failed: the rest is then
    only a part of the questions.
    """
    both = {candidate, other}
    failures = (
        f"{who}: {reason}"
        for who, reason in facts["failures"].items()
        if both.issuperset(who.split(" against "))
    )
    return facts["failed"] or "; ".join(failures)


def _judges(facts: Mapping[str, Any]) -> str | None:
    """The models that judged, whatever their settings. Earlier evaluations named only these."""
    found: str | None = facts.get("judge_members", facts.get("judge"))
    return found


@stage(GATE, part=part_of, content=lambda *_: {}, schema=2)
def gate(part: GatePart, context: Context) -> None:
    """Decide; write what each rule found, and the decision into the facts."""
    decision = decide(part, context.inputs["scores"])
    for each in decision.findings:
        context.out.write({"id": each.rule, **each.to_json()})
        context.ledger.rows["kept"] += 1
        context.progress.advance()
    say(f"gate: {decision.verdict}: {decision.why}")
    context.facts["decision"] = decision.to_json()
    version = context.inputs["scores"].manifest.part.get("content", {}).get(PRODUCTION)
    if version and decision.against == PRODUCTION:
        context.facts["against"] = version
