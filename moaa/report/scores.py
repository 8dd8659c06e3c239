"""One number of a report as text and as a chart: its value, its interval, its unit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from moaa.report import charts
from moaa.report.words import NBSP, count, number, percent

Facts = Mapping[str, Any]
Score = Mapping[str, Any]
DIFFERENCE = "difference of shares"
RATINGS = "difference of ratings"


def value(score: Score) -> str:
    """Return a score's value in its unit: `62.5 %`, `+1.2 pp`, `7.31`."""
    return _in_unit(score["value"], score["unit"])


def interval(score: Score) -> str:
    """Return a score's interval: `50.1 % to 73.4 %`; a dash if it has no end."""
    if not has_ends(score):
        return "–"
    return f"{_in_unit(score['low'], score['unit'])} to {_in_unit(score['high'], score['unit'])}"


def has_ends(score: Score) -> bool:
    """Return whether the interval has two ends. An infinite one,
    of a single conversation, is null."""
    return score["low"] is not None and score["high"] is not None


def metric(facts: Facts, score: Score) -> str:
    """Return the name of a number. The judge is part of it: another judge gives another number."""
    subset = f", {score['subset']}" if score["subset"] else ""
    judge = f" (judge: {facts['judge']})" if facts["judge"] else ""
    return f"{score['metric']}{subset}{judge}"


def _in_unit(x: float, unit: str) -> str:
    if unit == "share":
        return percent(x)
    if unit == DIFFERENCE:
        return f"{100 * x:+.1f}{NBSP}pp"
    if unit == RATINGS:
        return f"{x:+.2f}"
    return f"{x:.2f}" if unit == "rating" else f"{number(x)}{NBSP}{unit}"


def chart(score: Score) -> Markup:
    """Return the row of a forest plot for a score; empty if its unit has none."""
    if not has_ends(score):
        return Markup()
    if score["unit"] == "share":
        return charts.interval(score["value"], score["low"], score["high"])
    if score["unit"] == "rating":
        ends = ((score[key] - 1) / 9 for key in ("value", "low", "high"))
        return charts.interval(*ends, mark=None, label=f"{value(score)}, {interval(score)}")
    if score["unit"] in (DIFFERENCE, RATINGS):
        reach = max(abs(score["low"]), abs(score["high"]), 0.05)
        return charts.difference(score["value"], score["low"], score["high"], reach=reach)
    return Markup()


def spread(facts: Facts, name: str, shown: Callable[[float | None], str]) -> str:
    """Return a fact with its interval: `62.5 % (50.1 % to 73.4 %)`. A dash if it is not known;
    earlier runs have no intervals."""
    low, high = facts.get(f"{name}_low"), facts.get(f"{name}_high")
    text = shown(facts.get(name))
    return text if low is None or high is None else f"{text} ({shown(low)} to {shown(high)})"


def share_chart(facts: Facts, name: str, *, mark: float | None = 0.5) -> Markup:
    """Return a share among the facts as a row of a forest plot; empty if there is none. Earlier
    runs have no interval: then only the point."""
    share = facts.get(name)
    if share is None:
        return Markup()
    ends = [facts.get(f"{name}_{end}") for end in ("low", "high")]
    low, high = (share if end is None else end for end in ends)
    return charts.interval(share, low, high, mark=mark)


def position(judging: Facts) -> dict[str, str]:
    """Return what the verdicts say about the judge, each share with its interval;
    {} if there are none."""
    bias = judging.get("position_bias") or {}
    if not bias.get("verdicts"):
        return {}
    pairs = judging.get("pairs_in_both_orders")  # earlier runs have none
    return {
        "first_share": percent(bias["first_wins"]),
        "disagree_share": percent(judging["disagreement"]),
        "first": spread(bias, "first_wins", percent),
        "mean_p": spread(bias, "first_mean_p", percent),
        "verdicts": count(bias["verdicts"]),
        "disagree": spread(judging, "disagreement", percent),
        "pairs": count(pairs) if pairs is not None else "",
    }
