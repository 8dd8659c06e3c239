"""A stage's result in a few numbers, which Kubeflow's UI compares between runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from moaa.recipe.evaluation import BASE, HEAD_TO_HEAD, PRODUCTION
from moaa.report.view import by_model

_LAST = ("loss", "rewards/accuracies", "rewards/margins")
_HELD_OUT = {"loss": "loss", "accuracy": "rewards/accuracies", "margin": "rewards/margins"}


def figures(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return the last numbers of a training, or the main ones of each benchmark; {} for others."""
    found: dict[str, Any] = {}
    if curve := facts.get("curve"):
        found |= {name: curve[-1].get(name) for name in _LAST} | {
            "steps": facts.get("steps"),
            "tokens": facts.get("tokens"),
        }
    if measured := (facts.get("validation") or {}).get("curve"):
        found |= {"before, held-out loss": measured[0]["loss"]}
        found |= {f"held-out {name}": measured[-1].get(key) for name, key in _HELD_OUT.items()}
    found |= _win_rates(facts.get("win_rates") or [])
    for benchmark, each in (facts.get("benchmarks") or {}).items():
        for score in each["scores"]:
            if score["main"] and benchmark != HEAD_TO_HEAD:
                name = f"{score['entrant']} {benchmark}"
                found |= {name: score["value"], f"{name} n": score["n"]}
                found |= {f"{name} low": score["low"], f"{name} high": score["high"]}
    known = {name: float(value) for name, value in found.items() if value is not None}
    return {name: value for name, value in known.items() if math.isfinite(value)}


def _win_rates(rates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the win rates against production, and those against base, or the first contestant if
    base was not measured."""
    others = [rate["against"] for rate in rates]
    main = BASE if BASE in others else next(iter(others), "")
    # The UI shows the first 20 characters of a name: they must be different.
    names = {main: "win rate", PRODUCTION: "v production"}
    found: dict[str, Any] = {}
    for rate in by_model(rates):
        if rate["against"] in names:
            name = f"{rate['model']} {names[rate['against']]}"
            found |= {
                name: rate["rate"],
                f"{name} low": rate["low"],
                f"{name} high": rate["high"],
                "prompts judged": rate["n"],
            }
    return found
