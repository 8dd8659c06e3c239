"""The benchmarks of the example runs: two that were scored, one of judges, one that failed."""

from __future__ import annotations

from typing import Any

from moaa import statistics
from moaa.artifacts.table import Row
from moaa.benchmarks import Score
from moaa.statistics import Estimate, wilson

JUDGE = "mixture of strict, fair and smollm2"


def _share(value: float, n: int) -> Estimate:
    return Estimate(value, *wilson(value * n, n), n)


def _rating(value: float, n: int) -> Estimate:
    return Estimate(value, value - 0.7, value + 0.7, n, "rating")


def _win_rate(model: str, against: str, p: list[float]) -> list[Score]:
    wins, ties = sum(each > 0.5 for each in p), sum(each == 0.5 for each in p)
    rate = statistics.share(wins + ties / 2, len(p))
    counts: dict[str, float] = {"wins": wins, "ties": ties}
    return [
        Score(model, "win rate", rate, against, main=True, about=counts),
        Score(model, "mean probability to win", statistics.mean(p), against),
    ]


def _facts(name: str, title: str, scores: list[Score], **more: Any) -> Row:
    rows = [
        {"id": f"{name}/{number}", "benchmark": name, **score.to_json()}
        for number, score in enumerate(scores)
    ]
    return {
        "title": title,
        "protocol": "Every answer is judged in both orders.",
        "measures": "models",
        "judge": JUDGE,
        "sources": ["hub:someone/questions@0123456"],
        "items": 12,
        "digest": "6aedf23b36812830",
        "incomparable": "The published judge is gpt-4.",
        "failed": "",
        "failures": {},
        "lost": 0,
        "scores": rows,
        "lengths": {},
        "judging": {},
        **more,
    }


def benchmarks(judgements: list[Row], answers: list[Row]) -> dict[str, Row]:
    """The facts of the example's benchmarks, from its judgements of pairs and their answers."""
    pairs: dict[tuple[str, str], list[float]] = {}
    for row in judgements:
        pairs.setdefault((row["model_a"], row["model_b"]), []).append(row["p"])
    head = [
        score for (model, against), p in pairs.items() for score in _win_rate(model, against, p)
    ]
    lengths = statistics.lengths(answers)
    ratings = [
        Score(name, "rating", _rating(value, 24), main=True, about={"answers without a rating": 1})
        for name, value in (("base", 3.1), ("sft", 4.4), ("dpo", 4.9))
    ]
    ratings += [Score("dpo", "rating", _rating(3.3, 4), subset="math")]
    judges = [
        Score(JUDGE, "accuracy", _share(0.62, 620), main=True),
        Score("strict", "accuracy", _share(0.55, 620), main=True),
        Score("strict", "agreement", _share(0.7, 620), against=JUDGE),
    ]
    kept = [
        Score(
            "dpo",
            "difference",
            Estimate(-0.021, -0.04, -0.002, 1319, "difference of shares"),
            "base",
            "gsm8k",
        )
    ]
    return {
        "head_to_head": _facts(
            "head_to_head", "Head to head", head, sources=["prompts.evaluation"], lengths=lengths
        ),
        "mt_bench": _facts("mt_bench", "MT-Bench", ratings, lengths=lengths, lost=1),
        "judge_bench": _facts(
            "judge_bench", "JudgeBench", judges, measures="judges", judge="", incomparable=""
        ),
        "reasoning": _facts("reasoning", "Reasoning kept", kept, judge=""),
        "alpaca_eval": _facts(
            "alpaca_eval",
            "AlpacaEval 2",
            [],
            failed="its questions cannot be read: the hub does not answer",
        ),
    }
