"""The stages of an example run that judge answers: sample, label, evaluate."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from moaa import judge, statistics
from moaa.artifacts.table import Row
from moaa.benchmarks.head_to_head import win_rates
from moaa.judge.judgement import merged
from moaa.mixture import Proposal
from tests.support.example_scores import benchmarks
from tests.support.example_texts import CRITERIA, REVIEWERS, TOPICS

if TYPE_CHECKING:
    from tests.support.example_run import ExampleRun
from tests.support.example_parts import _use, add


def sample(run: ExampleRun, chance: random.Random) -> None:
    data = []
    for i in range(10):
        topic = TOPICS[i % len(TOPICS)]
        samples = [
            {"text": topic.answer(chance, 3), "count": 1, "finish_reason": "stop"} for _ in range(5)
        ]
        messages = [{"role": "user", "content": topic.turns[0]}]
        data.append(
            {
                "id": f"{i:016x}",
                "source": "mt-bench",
                "messages": messages,
                "samples": samples,
                "cut_turns": 0,
            }
        )
    ledger = {
        "rows": {"in": 10, "kept": 10, "merged answers": 2},
        "seconds": {"engines": 41.0, "asking": 6.4},
        "models": {"smollm2+sft": _use(10, 742, 5_630, 61.0)},
    }
    add(run, "sample", ledger, data=data, rejected=[])


def _order(first: int, second: int, p: float, criteria: tuple[str, ...]) -> judge.Order:
    """A verdict of p that the answer shown first is better, with what three reviewers said."""
    said = (
        f"Answer A is strong on {criteria[0].lower()}: it names the facts. "
        "Answer B is adequate; its example helps the reader."
    )
    assessments = tuple(Proposal(name, "smollm2", 0, said) for name in REVIEWERS)
    letter = "A" if p >= 0.5 else "B"
    return judge.Order(first, second, criteria, assessments, (), letter, p, True, letter)


def _judgement(a: int, b: int, chance: random.Random, lean: float = 0.5) -> Row:
    """Of two answers: the judge likes what it sees first a little better, whichever it is."""
    p_ab, p_ba = (
        min(0.97, max(0.03, lean + shift + chance.uniform(-0.2, 0.2))) for shift in (0.12, -0.12)
    )
    criteria = tuple(chance.sample(CRITERIA, 3))
    return merged(_order(a, b, p_ab, criteria), _order(b, a, 1 - p_ba, criteria)).to_json()


def label(run: ExampleRun, chance: random.Random) -> None:
    data, judgements = [], []
    for i in range(9):
        topic = TOPICS[i % len(TOPICS)]
        answers = [topic.answer(chance, 3) for _ in range(5)]
        wins = [0.0] * 5
        for a in range(5):
            for b in range(a + 1, 5):
                judged = _judgement(a, b, chance, 0.5 + 0.08 * (a - b))
                wins[a], wins[b] = wins[a] + judged["p"], wins[b] + 1 - judged["p"]
                judgements.append({"id": f"{i:016x}", **judged})
        best, worst = wins.index(max(wins)), wins.index(min(wins))
        data.append(
            {
                "id": f"{i:016x}",
                "source": "mt-bench",
                "messages": [{"role": "user", "content": topic.turns[0]}],
                "chosen": answers[best],
                "rejected": answers[worst],
                "chosen_cut": False,
                "rejected_cut": False,
                "chosen_index": best,
                "rejected_index": worst,
                "margin": round(wins[best] - wins[worst], 4),
                "wins": [round(w, 4) for w in wins],
            }
        )
    ledger = {
        "rows": {"in": 10, "kept": 9, "pairs": 9},
        "rejected": {"too few proposals": 1},
        "events": {"left out: strict (timeout)": 2},
        "seconds": {"engines": 38.6, "asking": 99.8},
        "models": {"smollm2": _use(898, 531_020, 33_480, 2210.0, retries=2, truncated=412)},
    }
    rejected = [
        {
            "id": "9",
            "source": "mt-bench",
            "reason": "too few proposals",
            "detail": "strict: timeout; fair: timeout",
            "messages": [{"role": "user", "content": TOPICS[1].turns[0]}],
            "samples": [],
            "cut_turns": 0,
        }
    ]
    add(
        run,
        "label",
        ledger,
        facts=_judging(judgements),
        data=data,
        judgements=judgements,
        rejected=rejected,
    )


def _judging(judgements: list[Row]) -> Row:
    tally = judge.Tally()
    for each in judgements:
        tally.add(judge.Judgement.from_json(each))
    return tally.facts()


def evaluate(run: ExampleRun, chance: random.Random, others: tuple[str, ...] = ("base",)) -> None:
    """Both trained models are judged against each of the others."""
    answers, judgements = [], []
    for i in range(12):
        topic = TOPICS[i % len(TOPICS)]
        for number, model in enumerate((*others, "sft", "dpo")):
            answers.append(
                {
                    "id": f"{i:016x}",
                    "benchmark": "head_to_head",
                    "group": "mt-bench",
                    "turn": 1,
                    "messages": [{"role": "user", "content": topic.turns[0]}],
                    "model": model,
                    "text": topic.answer(chance, 2 + number),
                    "tokens": 60 + 22 * number + chance.randrange(40),
                    "finish_reason": "stop",
                }
            )
        for model, lean in (("sft", 0.53), ("dpo", 0.6)):
            about = {"id": f"{i:016x}", "benchmark": "head_to_head", "group": "mt-bench"}
            for other in others:
                judged = _judgement(0, 1, chance, lean)
                judgements.append({**about, "model_a": model, "model_b": other, **judged})
    ledger = {
        "rows": {"in": 12, "kept": 12},
        "seconds": {"engines": 84.0, "asking": 34.2},
        "models": {
            "smollm2": _use(228, 98_114, 8_240, 610.0),
            "smollm2+dpo": _use(12, 900, 1_260, 22.0),
            "smollm2+sft": _use(12, 900, 1_020, 19.0),
        },
    }
    played = benchmarks(judgements, answers)
    facts = {
        "benchmarks": played,
        "win_rates": win_rates(played["head_to_head"]["scores"]),
        "lengths": statistics.lengths(answers),
        **_judging(judgements),
    }
    add(
        run,
        "evaluate",
        ledger,
        facts=facts,
        kind="scores",
        answers=answers,
        judgements=judgements,
        rejected=[],
    )
