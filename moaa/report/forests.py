"""Forests of paired differences to the base: was reasoning lost, are answers better? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moaa.report import charts
from moaa.report.scores import DIFFERENCE, RATINGS, Facts, Score, has_ends, interval, value
from moaa.statistics import holm

FORESTS = {
    "Reasoning kept": "in percentage points, paired by question. An interval left of the line: "
    "something was lost. p is adjusted for the number of benchmarks (Holm).",
    "Win rates compared": "in percentage points of two win rates against the same baseline, paired "
    "by prompt.",
    "Ratings compared": "of two mean ratings, in points from 1 to 10, paired by answer.",
}
"""The forests of differences by their titles, with the text below each."""


def forests(facts: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """Return the forests of paired differences to the base that have at least one row."""
    found: dict[str, list[tuple[Facts, Score]]] = {title: [] for title in FORESTS}
    reasoning, rates, ratings = found.values()
    for each in facts.values():
        for score in each["scores"]:
            if not (score["against"] and has_ends(score)) or each["measures"] != "models":
                continue
            if score["unit"] == RATINGS:
                ratings.append((each, score))
            elif score["unit"] == DIFFERENCE:
                (rates if each["judge"] else reasoning).append((each, score))
    return [
        {
            "title": title,
            "about": FORESTS[title],
            "rows": _forest(rows),
        }
        for title, rows in found.items()
        if rows
    ]


def _forest(found: Sequence[tuple[Facts, Score]]) -> list[dict[str, Any]]:
    """Return the rows of a forest, on one scale.
    `p` is Holm's, over the benchmarks of an entrant."""
    reach = max(abs(score[end]) for _, score in found for end in ("low", "high"))
    adjusted = _adjusted(found)
    return [
        {
            "title": each["title"],
            "who": f"{score['entrant']} against {score['against']}",
            "value": value(score),
            "interval": interval(score),
            "n": score["n"],
            "p": adjusted.get((each["title"], score["entrant"])),
            "chart": charts.difference(
                score["value"], score["low"], score["high"], reach=max(reach, 0.01)
            ),
        }
        for each, score in found
    ]


def _adjusted(found: Sequence[tuple[Facts, Score]]) -> dict[tuple[str, str], float]:
    """Return the p-values of the differences, adjusted for how many benchmarks an entrant has."""
    adjusted: dict[tuple[str, str], float] = {}
    for entrant in dict.fromkeys(score["entrant"] for _, score in found):
        raw = {
            each["title"]: score["about"]["p"]
            for each, score in found
            if score["entrant"] == entrant and "p" in score.get("about", {})
        }
        adjusted |= {(title, entrant): p for title, p in holm(raw).items()}
    return adjusted
