"""The benchmarks of a run as the page shows them: a table of all, and a section for each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from moaa.report import charts
from moaa.report.tables import cost_usd_of
from moaa.report.view import RunView
from moaa.report.words import NBSP, number, percent
from moaa.statistics import holm

Facts = Mapping[str, Any]
Score = Mapping[str, Any]
DIFFERENCE = "difference of shares"


def benchmarks(run: RunView) -> dict[str, Any]:
    """Return what the page shows of the evaluation's benchmarks; {} if there are none."""
    facts: Mapping[str, Facts] = run.stage("evaluate").facts.get("benchmarks") or {}
    if not facts:
        return {}
    return {
        "matrix": matrix(facts),
        "sections": [_section(name, each) for name, each in facts.items()],
        "length": length_and_rate(facts),
        "kept": kept(facts),
        "cost": cost_usd_of(run, "evaluate"),
    }


def value(score: Score) -> str:
    """Return a score's value in its unit: `62.5 %`, `+1.2 pp`, `7.31`."""
    return _in_unit(score["value"], score["unit"])


def interval(score: Score) -> str:
    """Return a score's interval: `50.1 % to 73.4 %`; a dash if it has no end."""
    if not _has_ends(score):
        return "–"
    return f"{_in_unit(score['low'], score['unit'])} to {_in_unit(score['high'], score['unit'])}"


def _has_ends(score: Score) -> bool:
    """Whether the interval has two ends. An infinite one, of a single conversation, is null."""
    return score["low"] is not None and score["high"] is not None


def metric(facts: Facts, score: Score) -> str:
    """Return what a number is. The judge is part of the name: another one gives another number."""
    subset = f", {score['subset']}" if score["subset"] else ""
    judge = f" (judge: {facts['judge']})" if facts["judge"] else ""
    return f"{score['metric']}{subset}{judge}"


def _in_unit(x: float, unit: str) -> str:
    if unit == "share":
        return percent(x)
    if unit == DIFFERENCE:
        return f"{100 * x:+.1f}{NBSP}pp"
    return f"{x:.2f}" if unit == "rating" else number(x)


def matrix(facts: Mapping[str, Facts]) -> dict[str, Any]:
    """Return the table of models by benchmarks: the main score of each, with its interval.

    A cell is grey if the number cannot be compared with published ones; an empty one says why.
    """
    shown = {name: each for name, each in facts.items() if each["measures"] == "models"}
    entrants: dict[str, None] = {}
    for each in shown.values():
        for score in each["scores"]:
            if score["against"] and score["main"]:
                entrants.setdefault(score["against"])
            entrants.setdefault(score["entrant"])
    rows = [
        {"entrant": entrant, "cells": [_cell(each, entrant) for each in shown.values()]}
        for entrant in _ordered(entrants)
    ]
    heads = [
        {"title": each["title"], "about": _about_main(each), "grey": bool(each["incomparable"])}
        for each in shown.values()
    ]
    return {"heads": heads, "rows": rows} if rows else {}


def _about_main(facts: Facts) -> str:
    main = _main(facts)
    if not main:
        return ""
    against = f" against {main[0]['against']}" if main[0]["against"] else ""
    return f"{metric(facts, main[0])}{against}"


def _cell(facts: Facts, entrant: str) -> dict[str, Any]:
    for score in _main(facts):
        if score["entrant"] == entrant:
            return {
                "value": value(score),
                "interval": interval(score),
                "n": score["n"],
                "grey": bool(facts["incomparable"]),
            }
    why = facts["failed"] or facts["failures"].get(entrant, "")
    return {"value": "", "why": why.splitlines()[0] if why else ""}


def _main(facts: Facts) -> list[Score]:
    return [score for score in facts["scores"] if score["main"]]


def _ordered(entrants: Mapping[str, None]) -> list[str]:
    """Return the paper's order: first the mixture itself; then base, SFT, DPO, and others."""
    order = ("mixture", "base", "sft", "dpo")
    return sorted(entrants, key=lambda name: order.index(name) if name in order else len(order))


def _section(name: str, facts: Facts) -> dict[str, Any]:
    """Return one benchmark: its protocol, every score, lengths, and what was lost."""
    lengths = facts["lengths"]
    rows = []
    for score in facts["scores"]:
        mine = (lengths.get(score["entrant"]) or {}).get("mean_tokens")
        theirs = (lengths.get(score["against"]) or {}).get("mean_tokens")
        rows.append(
            {
                "entrant": score["entrant"],
                "against": score["against"],
                "metric": f"{score['metric']}{', ' + score['subset'] if score['subset'] else ''}",
                "main": score["main"],
                "value": value(score),
                "interval": interval(score),
                "chart": _chart(score),
                "n": score["n"],
                "tokens": None
                if mine is None
                else f"{mine:.0f}{f' / {theirs:.0f}' if theirs is not None else ''}",
                "about": ", ".join(f"{key} {number(n)}" for key, n in score["about"].items()),
            }
        )
    return {
        "name": name,
        "title": facts["title"],
        "protocol": facts["protocol"],
        "judge": facts["judge"],
        "sources": facts["sources"],
        "questions": facts["items"],
        "digest": facts["digest"],
        "pinned": facts.get("pinned", ""),  # earlier runs have none
        "incomparable": facts["incomparable"],
        "failed": facts["failed"],
        "failures": facts["failures"],
        "lost": facts["lost"],
        "truncated": {who: each["truncated"] for who, each in lengths.items() if each["truncated"]},
        "rows": rows,
        "judging": facts["judging"],
        "with_tokens": any(row["tokens"] for row in rows),
    }


def _chart(score: Score) -> Markup:
    if not _has_ends(score):
        return Markup()
    if score["unit"] == "share":
        return charts.interval(score["value"], score["low"], score["high"])
    if score["unit"] == "rating":
        value, low, high = ((score[key] - 1) / 9 for key in ("value", "low", "high"))
        return charts.interval(value, max(low, 0), min(high, 1), mark=-1)
    if score["unit"] == DIFFERENCE:
        reach = max(abs(score["low"]), abs(score["high"]), 0.05)
        return charts.difference(score["value"], score["low"], score["high"], reach=reach)
    return Markup()


def length_and_rate(facts: Mapping[str, Facts]) -> Markup:
    """Return the plot of win rates by how much longer the answers are. Empty without two."""
    points = []
    for each in facts.values():
        for score in _win_rates(each):
            mine, theirs = (
                (each["lengths"].get(score[who]) or {}).get("mean_tokens")
                for who in ("entrant", "against")
            )
            if mine and theirs:
                label = f"{each['title']}: {score['entrant']} against {score['against']}"
                points.append((mine / theirs, score["value"], label))
    return charts.scatter(points, mark=0.5) if points else Markup()


def _win_rates(facts: Facts) -> Iterator[Score]:
    for score in facts["scores"]:
        if score["metric"] == "win rate" and not score["subset"]:
            yield score


def kept(facts: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """Return the forest of paired differences to the base: is reasoning kept? `p` is Holm's, over
    the benchmarks of an entrant."""
    found: Sequence[tuple[Facts, Score]] = [
        (each, score)
        for each in facts.values()
        for score in each["scores"]
        if score["unit"] == DIFFERENCE
        and score["against"]
        and _has_ends(score)
        and each["measures"] == "models"
    ]
    if not found:
        return []
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
    """The p-values of the differences, adjusted for how many benchmarks an entrant has."""
    adjusted: dict[tuple[str, str], float] = {}
    for entrant in dict.fromkeys(score["entrant"] for _, score in found):
        raw = {
            each["title"]: score["about"]["p"]
            for each, score in found
            if score["entrant"] == entrant and "p" in score.get("about", {})
        }
        adjusted |= {(title, entrant): p for title, p in holm(raw).items()}
    return adjusted
