"""The rounds of a run as the page shows them: a table, and curves with their intervals. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moaa.recipe.evaluation import HEAD_TO_HEAD
from moaa.report import charts
from moaa.report.scores import interval, value
from moaa.report.view import RunView
from moaa.report.words import number, percent

WIN_RATE = "win rate"
Score = Mapping[str, Any]


def rounds(run: RunView) -> dict[str, Any]:
    """Return what the page shows of the rounds of a run; {} for a run of one round.

    rows    one for each round: decision, who was measured against whom, main numbers with intervals
    curves  one for each chart: the win rate against the first model, and each benchmark's main
    number
    """
    if not run.earlier:
        return {}
    found = [_row(each, k) for k, each in enumerate(run.rounds, 1)]
    titles = list(dict.fromkeys(title for row in found for title in row["scores"]))
    for row in found:
        row["cells"] = [row["before"], row["first"], *map(row["scores"].get, titles)]
    return {
        "rows": found,
        "titles": titles,
        "curves": list(_curves(found, titles)),
        "said": said(run),
    }


def said(run: RunView) -> str:
    """Return how the rounds went, in one sentence."""
    verdicts = [decision_of(each).get("verdict") for each in run.rounds]
    won = sum(verdict == "promote" for verdict in verdicts)
    text = f"{won} of {len(verdicts)} rounds won"
    last = verdicts[-1]
    if last is None:
        return f"{text}; round {len(verdicts)} has no decision."
    if last == "promote":
        return f"{text}."
    how = "was refused" if last == "refuse" else "is undecided"
    return f"{text}; the model of round {len(verdicts)} {how}, which ended the run."


def decision_of(run: RunView) -> Mapping[str, Any]:
    """Return what the gate of the last round decided; {} if it did not."""
    return next((each.facts["decision"] for each in run.stages if each.facts.get("decision")), {})


def _row(run: RunView, round_: int) -> dict[str, Any]:
    decision = decision_of(run)
    benchmarks: Mapping[str, Any] = run.stage("evaluate").facts.get("benchmarks") or {}
    measured = [score for each in benchmarks.values() for score in each["scores"]]
    candidate = decision.get("candidate") or next(
        (name for name in ("dpo", "sft") if any(s["entrant"] == name for s in measured)), ""
    )
    pairs = [s for s in measured if s["metric"] == WIN_RATE and s["entrant"] == candidate]
    before = next((s for s in pairs if s["against"] == "base"), None)
    named = next((s for s in pairs if s["against"] not in ("base", "sft", "dpo", "production")
                  and s["main"]), None)  # fmt: skip
    first = named or before
    return {
        "round": round_,
        "candidate": candidate,
        "verdict": decision.get("verdict", ""),
        "why": decision.get("why", ""),
        "findings": decision.get("findings", []),
        "against": decision.get("against", ""),
        "before": before and _cell(before),
        "first": _cell(first) if first else None,
        "scores": _mains(benchmarks, candidate),
        "starts": _mains(benchmarks, "base"),
        "published": next(
            (s.facts["published"] for s in run.stages if s.facts.get("published")), None
        ),
    }


def _mains(benchmarks: Mapping[str, Any], entrant: str) -> dict[str, dict[str, Any]]:
    """Return the main number of a model on each benchmark of models, by the benchmark's title."""
    return {
        each["title"]: _cell(score)
        for name, each in benchmarks.items()
        if name != HEAD_TO_HEAD and each["measures"] == "models"
        for score in each["scores"]
        if score["main"] and score["entrant"] == entrant
    }


def _cell(score: Score) -> dict[str, Any]:
    return {
        "shown": value(score),
        "interval": interval(score),
        "n": score["n"],
        "unit": score["unit"],
        "ends": (score["value"], score["low"], score["high"]),
    }


def _curves(rows: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> Iterator[dict[str, Any]]:
    wins = [(row["round"], *row["first"]["ends"]) for row in rows if row["first"]]
    if wins:
        chart = charts.whiskers(wins, unit="round", mark=0.5, low=0.0, high=1.0, shown=percent)
        yield {
            "title": "Win rate against the first model",
            "chart": chart,
            "mark": "dashed: no difference",
        }
    for title in titles:
        points = [
            (row["round"], *row["scores"][title]["ends"]) for row in rows if title in row["scores"]
        ]
        unit = next(row["scores"][title]["unit"] for row in rows if title in row["scores"])
        if start := rows[0]["starts"].get(title):  # the model before the first round
            points = [(0, *start["ends"]), *points]
        shown = percent if unit == "share" else number
        chart = charts.whiskers(points, unit="round", shown=shown)
        yield {"title": title, "chart": chart, "mark": "round 0: before the first one"}
