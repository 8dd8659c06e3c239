"""The result of a stage in one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moaa.report.view import by_model
from moaa.report.words import percent


def loss(facts: Mapping[str, Any]) -> str:
    """Return `loss 1.19 → 0.686`: the first and the last of a training. Empty if it logged none."""
    losses = [point["loss"] for point in facts.get("curve") or () if point.get("loss") is not None]
    return f"loss {losses[0]:.3g} → {losses[-1]:.3g}" if losses else ""


def win_rate(facts: Mapping[str, Any]) -> str:
    """Return `dpo wins 62.5 % against base`: the win rate of the last training. Empty if nothing
    was compared."""
    rates = by_model(facts.get("win_rates") or [])
    if not rates:
        return ""
    first = rates[0]
    return f"{first['model']} wins {percent(first['rate'])} against {first['against']}"


def verdict(facts: Mapping[str, Any]) -> str:
    """Return `promote: dpo against base`: what the gate decided. Empty if it did not."""
    decision = facts.get("decision")
    if not decision:
        return ""
    return f"{decision['verdict']}: {decision['candidate']} against {decision['against']}"


def promoted(facts: Mapping[str, Any]) -> str:
    """Return `aligned, version 0a1b…, is in production`, or why it is not."""
    if found := facts.get("promoted"):
        return f"{found['name']}, version {found['version']}, is in production"
    return f"not promoted: {facts['why']}" if facts.get("why") else ""


def published(facts: Mapping[str, Any]) -> str:
    """Return `aligned, version 0a1b…`: what was published, or why nothing was;
    and where it is not shown."""
    if found := facts.get("published"):
        away = [place for place in ("registry", "hub", "hub (data)") if facts.get(place)]
        not_in = f"; not in: {', '.join(away)}" if away else ""
        return f"{found['name']}, version {found['version']}{not_in}"
    return f"not published: {facts['why']}" if facts.get("why") else ""
