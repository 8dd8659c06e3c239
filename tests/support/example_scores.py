"""The benchmarks of the example runs: two that were scored, one of judges, one that failed."""

from __future__ import annotations

from typing import Any

from moaa import statistics
from moaa.artifacts.table import Row
from moaa.benchmarks import Score
from moaa.statistics import Estimate, wilson

DIFFERENCE, RATINGS = "difference of shares", "difference of ratings"
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
    ratings += [
        Score("dpo", "rating", _rating(3.3, 4), subset="math"),
        Score("dpo", "rating difference", Estimate(1.8, 1.1, 2.5, 24, RATINGS), "base"),
    ]
    judges = [
        Score(JUDGE, "accuracy", _share(0.62, 620), main=True),
        Score("strict", "accuracy", _share(0.55, 620), main=True),
        Score("strict", "agreement", _share(0.7, 620), against=JUDGE),
        Score(JUDGE, "entropy of a verdict", Estimate(0.41, 0.38, 0.44, 1240, "bits")),
    ]
    kept = [
        Score(
            "dpo",
            "difference",
            Estimate(-0.021, -0.04, -0.002, 1319, DIFFERENCE),
            "base",
            "gsm8k",
        )
    ]
    arena = [
        Score("dpo", "win rate", _share(0.2, 40), "gpt-4-0314"),
        Score("dpo", "win rate at equal style", _share(0.25, 40), "gpt-4-0314", main=True),
        Score("dpo", "win rate difference", Estimate(0.06, 0.01, 0.11, 40, DIFFERENCE), "base"),
    ]
    baseline = {"gpt-4-0314": statistics.characters(["A long answer. " * 20, "A short answer."])}
    bias = {"first_wins": 0.625, "first_wins_low": 0.51, "first_wins_high": 0.73}
    judging = {
        "position_bias": {**bias, "verdicts": 80, "hard": 0},
        **{"disagreement": 0.25, "disagreement_low": 0.14, "disagreement_high": 0.4},
        "pairs_in_both_orders": 40,
    }
    return {
        "head_to_head": _facts(
            "head_to_head", "Head to head", head, sources=["prompts.evaluation"], lengths=lengths
        ),
        "mt_bench": _facts("mt_bench", "MT-Bench", ratings, lengths=lengths, lost=1),
        "arena_hard": _facts(
            "arena_hard", "Arena-Hard", arena, lengths=lengths | baseline, judging=judging
        ),
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
