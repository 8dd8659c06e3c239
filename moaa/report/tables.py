"""The numbers of a run's tables: rows, calls, plan, cost, time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from moaa.ledger import ModelUse
from moaa.report.view import BROKEN, RunView
from moaa.report.words import seconds


def funnel(run: RunView) -> list[dict[str, Any]]:
    """Return, for each stage that read rows: in, kept, rejected by reason, and its other counts."""
    return [
        {
            "stage": stage.name,
            "in": stage.rows_in,
            "kept": stage.kept,
            "rejected": stage.ledger.rejected.most_common(),
            "other": stage.other_rows,
            "unfinished": stage.status in BROKEN,
            "reused": stage.status == "reused",
        }
        for stage in run.present
        if stage.ledger.rows or stage.ledger.rejected
    ]


def calls(run: RunView) -> list[dict[str, Any]]:
    """Return calls and tokens by stage and model."""
    return [
        {
            "stage": stage.name,
            "model": model,
            "use": use,
            "latency": use.seconds / use.calls if use.calls else None,
            "attempts": stage.ledger.attempts,
            "reused": stage.status == "reused",
        }
        for stage in run.present
        for model, use in sorted(stage.uses.items())
    ]


_COUNTS = ("calls", "prompt_tokens", "completion_tokens", "steps", "train_tokens")


def plan(run: RunView) -> list[dict[str, Any]]:
    """Return (planned, counted) by stage and model; [] if preflight left no plan.

    None: not planned, or not run.
    """
    planned = {
        (each["stage"], each["model"]): each
        for each in run.stage("preflight").facts.get("plan") or []
    }
    if not planned:
        return []
    counted: dict[tuple[str, str], dict[str, int]] = {}
    for each in calls(run):
        use = each["use"]
        counted[each["stage"], each["model"]] = {
            # An answer from the journal belongs to a call of an earlier attempt, which is counted
            # if there was one, or to a call of this attempt.
            "calls": use.calls + (use.journal if each["attempts"] == 1 else 0),
            "prompt_tokens": use.prompt_tokens,
            "completion_tokens": use.completion_tokens,
        }
    for key, each in planned.items():
        facts = run.stage(key[0]).facts
        if each.get("steps") and facts.get("steps"):
            counted[key] = {"steps": facts["steps"], "train_tokens": facts.get("tokens", 0)}
    order = {stage.name: number for number, stage in enumerate(run.stages)}
    keys = sorted({*planned, *counted}, key=lambda key: (order.get(key[0], len(order)), key[1]))
    return [
        {
            "stage": stage,
            "model": model,
            "counts": {
                name: (
                    planned.get((stage, model), {}).get(name),
                    counted.get((stage, model), {}).get(name),
                )
                for name in _COUNTS
            },
        }
        for stage, model in keys
    ]


def cost_usd_of(run: RunView, stage: str) -> float | None:
    """Return the dollars for the tokens of one stage. None if the recipe has no prices."""
    prices = run.stage("preflight").facts.get("prices") or {}
    priced = [each for each in calls(run) if each["model"] in prices and each["stage"] == stage]
    return (
        float(sum(_usd(each["use"], prices[each["model"]]) for each in priced)) if priced else None
    )


def cost_usd(run: RunView, *, reused: bool) -> float | None:
    """Return the dollars for the tokens of this run's own stages, or of the reused ones.

    None if the recipe has no prices.
    """
    prices = run.stage("preflight").facts.get("prices") or {}
    priced = [each for each in calls(run) if each["model"] in prices and each["reused"] == reused]
    if not priced:
        return None
    return float(sum(_usd(each["use"], prices[each["model"]]) for each in priced))


class GpuUse(NamedTuple):
    """GPUs that stages held, for as long as these ran: hours of one GPU, and dollars."""

    hours: float
    usd: float


def gpu_use(run: RunView, stage: str = "") -> GpuUse | None:
    """Return what this run's own stages held, or one of them; reused ones held nothing.

    None if the recipe states no pool with GPUs for any of them, or an earlier version noted none.
    """
    gpus = run.stage("preflight").facts.get("gpus") or {}
    held = [
        (each.seconds / 3600, gpus[each.name])
        for each in run.present
        if each.name in gpus and each.status != "reused" and stage in ("", each.name)
    ]
    if not held:
        return None
    return GpuUse(
        sum(hours * own["gpus"] for hours, own in held),
        sum(hours * own["hour_usd"] for hours, own in held),
    )


def _usd(use: ModelUse, price: Mapping[str, float]) -> float:
    prompt, completion = use.prompt_tokens, use.completion_tokens
    return (prompt * price["prompt"] + completion * price["completion"]) / 1e6


def steps(run: RunView) -> list[tuple[str, str]]:
    """Return how each stage spent its time: (stage, `engines 39 s, asking 47 s`)."""
    return [
        (stage.name, ", ".join(f"{step} {seconds(s)}" for step, s in stage.ledger.seconds.items()))
        for stage in run.present
        if stage.ledger.seconds
    ]
