"""The benchmarks of a run as the page shows them: a table of all, and a section for each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from moaa.report import charts
from moaa.report.forests import forests
from moaa.report.scores import Facts, Score, chart, interval, metric, position, spread, value
from moaa.report.tables import cost_usd_of, gpu_use
from moaa.report.view import RunView
from moaa.report.words import NBSP, count, number, percent


def benchmarks(run: RunView) -> dict[str, Any]:
    """Return what the page shows of the evaluation's benchmarks; {} if there are none."""
    facts: Mapping[str, Facts] = run.stage("evaluate").facts.get("benchmarks") or {}
    if not facts:
        return {}
    return {
        "matrix": matrix(facts),
        "sections": [_section(name, each) for name, each in facts.items()],
        "length": length_and_rate(facts),
        "forests": forests(facts),
        "cost": _cost(run),
    }


def _cost(run: RunView) -> str:
    """What the evaluation cost, as a sentence; empty if nothing of it is known."""
    usd, gpus = cost_usd_of(run, "evaluate"), gpu_use(run, "evaluate")
    parts = []
    if usd is not None:
        parts.append(f"${usd:,.2f} in tokens")
    if gpus is not None:
        parts.append(f"{number(gpus.hours)} GPU-hours, ${gpus.usd:,.2f}")
    return f"The evaluation cost {' and '.join(parts)}." if parts else ""


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
                "length": _relative_length(facts, score),
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
    rows = []
    for score in facts["scores"]:
        rows.append(
            {
                "entrant": score["entrant"],
                "against": score["against"],
                "metric": f"{score['metric']}{', ' + score['subset'] if score['subset'] else ''}",
                "main": score["main"],
                "value": value(score),
                "interval": interval(score),
                "chart": chart(score),
                "n": score["n"],
                "length": _lengths_of(facts, score),
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
        "lengths": length_rows(facts["lengths"]),
        "rows": rows,
        "judging": position(facts["judging"]),
        "with_length": any(row["length"] for row in rows),
    }


def length_rows(lengths: Facts) -> list[dict[str, Any]]:
    """Return who wrote how much: means with their intervals, shares of cut and of empty answers. Of
    a baseline only the characters are known."""
    return [
        {
            "who": who,
            "answers": each["answers"],
            "characters": spread(each, "mean_characters", count),
            "tokens": spread(each, "mean_tokens", count),
            "truncated": spread(each, "truncated", percent),
            "empty": spread(each, "empty", percent),
        }
        for who, each in lengths.items()
    ]


def _lengths_of(facts: Facts, score: Score) -> str:
    """The mean characters of the answers behind a score, both sides': `812 / 2,043`; empty if they
    are not known."""
    mine, theirs = _characters(facts, score)
    if mine is None:
        return ""
    return f"{count(mine)} / {count(theirs)}" if theirs is not None else count(mine)


def _relative_length(facts: Facts, score: Score) -> str:
    """The mean length behind a main score, in characters, and as a multiple of the other side's."""
    mine, theirs = _characters(facts, score)
    if mine is None:
        return ""
    ratio = f", {mine / theirs:.2f}{NBSP}x" if theirs else ""
    return f"{count(mine)}{NBSP}characters{ratio}"


def _characters(facts: Facts, score: Score) -> tuple[float | None, float | None]:
    """The mean characters of the entrant's answers, and of those it was judged against."""
    mine, theirs = (
        (facts["lengths"].get(score[who]) or {}).get("mean_characters")
        for who in ("entrant", "against")
    )
    return mine, theirs


def length_and_rate(facts: Mapping[str, Facts]) -> Markup:
    """Return the plot of win rates by how much longer the answers are. Empty without two."""
    points = []
    for each in facts.values():
        for score in _win_rates(each):
            mine, theirs = _characters(each, score)
            if mine and theirs:
                label = f"{each['title']}: {score['entrant']} against {score['against']}"
                points.append((mine / theirs, score["value"], label))
    return charts.scatter(points, mark=0.5) if points else Markup()


def _win_rates(facts: Facts) -> Iterator[Score]:
    for score in facts["scores"]:
        if score["metric"] == "win rate" and not score["subset"]:
            yield score
