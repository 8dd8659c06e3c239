"""`moaa gate`: decides again about a finished run, by the same or other rules."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moaa import records
from moaa.artifacts import Artifact
from moaa.benchmarks.judgements import members_of
from moaa.commands.runs import chosen_run
from moaa.errors import StoreError
from moaa.gate import Decision
from moaa.progress.terminal import console, out_data
from moaa.recipe.document import Part
from moaa.recipe.gate import Gate
from moaa.recipe.load import load_file
from moaa.recipe.mistakes import checked
from moaa.recipe.overrides import apply, of_sets, refusal
from moaa.recipe.read import given_of
from moaa.records import Record
from moaa.retrain.outcome import EXIT, OF_VERDICT
from moaa.stages import gate as stage
from moaa.stages.label import LabelPart
from moaa.store import Store


class _Rules(Part):
    gate: Gate


def decide(
    run_id: str | None,
    recipe: Path | None,
    root: str | None,
    sets: Sequence[str],
    *,
    as_json: bool,
) -> int:
    """Decide about a run, print the decision, and return its exit status."""
    given = load_file(recipe).recipe.gate if recipe else None
    with chosen_run(run_id, recipe, root) as (store, name, left):
        found = _decided(left)
        part = _part(found, given)
        part = part.model_copy(update={"gate": rules(part.gate, sets)})
        decision = stage.decide(part, _scores(store, name, found))
    if as_json:
        out_data(json.dumps(decision.to_json(), indent=1, ensure_ascii=False) + "\n")
    else:
        _show(name, decision)
    return EXIT[OF_VERDICT[decision.verdict]]


def _decided(left: Sequence[Record]) -> dict[str, Record]:
    """Return the records of the round to decide about: the last one with scores."""
    rounds = [{record["stage"]: record for record in each} for each in records.by_round(left)]
    return next((each for each in reversed(rounds) if _manifest(each, "evaluate")), rounds[0])


def rules(base: Gate, sets: Sequence[str]) -> Gate:
    """Return the rules with some fields replaced: `gate.floor=0.02`.

    Raises RecipeError for a name that is not a field of the gate, or for a wrong value.
    """
    errors: list[str] = []
    overrides = of_sets(sets, errors)
    errors += [
        f"{each.where}: only fields of the gate can be set: gate.margin=0.01"
        for each in overrides
        if each.path[0] != "gate" or len(each.path) == 1
    ]
    given = given_of({"gate": base.model_dump()}, "gate")
    apply(given, overrides, errors)
    found = None if errors else checked(given, _Rules, errors)
    if found is None:
        raise refusal(errors)
    return found.gate


def _part(found: Mapping[str, Record], given: Gate | None) -> stage.GatePart:
    """Return what the run's own gate depended on; if it had none: the judge of its label stage."""
    decided = _manifest(found, "gate")
    if decided:
        part = stage.GatePart.model_validate(decided["part"])
        return part.model_copy(update={"gate": given}) if given else part
    judge = None
    if labelled := _manifest(found, "label"):
        known = {k: v for k, v in labelled["part"].items() if k in LabelPart.model_fields}
        judge = LabelPart.model_validate(known).judge
    return stage.GatePart(
        gate=given or Gate(), preferences_judge=members_of(judge) if judge else ""
    )


def _scores(store: Store, run_id: str, found: Mapping[str, Record]) -> Artifact:
    manifest = _manifest(found, "evaluate")
    if not manifest:
        raise StoreError(
            f"the run {run_id} has no scores: its stage evaluate is not done. Run it to its end, "
            "or name another run (`moaa runs` lists them)."
        )
    return Artifact.open(store, manifest["uri"], manifest["fingerprint"])


def _manifest(found: Mapping[str, Record], name: str) -> dict[str, Any]:
    record = found.get(name)
    return (record["manifest"] if record else None) or {}


def _show(run_id: str, decision: Decision) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "rule", "what it found", "would decide it"):
        table.add_column(title)
    for each in decision.findings:
        needed = f"{each.needed:,} items" if each.needed else ""
        table.add_row(each.outcome, each.rule, Text(each.about), needed)
    console().print(
        f"{decision.verdict}: {decision.candidate} against {decision.against}, run {run_id}",
        highlight=False,
    )
    console().print(Text(decision.power))
    console().print(table)
