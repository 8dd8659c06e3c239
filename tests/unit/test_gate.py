"""The gate decides by bounds of intervals: pass, fail or undecided for each rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moaa import gate
from moaa.artifacts.table import Row
from moaa.gate.rules import findings
from moaa.gate.texts import refused, repeated
from moaa.recipe.gate import Allowed, Gate

pytestmark = pytest.mark.usefixtures("few_resamples")
N = 400


def evidence(win: float = 0.6, n: int = N, **changed: Any) -> gate.Evidence:
    """Evidence of n prompts, of which the candidate wins a share; nothing else is different."""
    wins = [1.0] * round(win * n) + [0.0] * (n - round(win * n))
    lengths = [900 + 40 * (i % 7) for i in range(n)]
    same = gate.Paired([0.0] * n, [0.0] * n, [str(i) for i in range(n)])
    found = gate.Evidence(
        "dpo",
        "production",
        wins=wins,
        lengths=(lengths, lengths[::-1]),
        bad=dict.fromkeys(("truncated", "empty", "repeated", "refused"), same),
        reasoning={"gsm8k": marks(0, n=1000)},
        consistent=n * 9 // 10,
        in_both_orders=n,
    )
    return replace(found, **changed)


def marks(worse: int, n: int = 1000, changed: int = 100) -> gate.Paired:
    """Marks of n questions: `changed` are answered otherwise, with a net loss of `worse`."""
    ours = np.zeros(n)
    theirs = np.zeros(n)
    ours[: (changed - worse) // 2] = 1
    theirs[(changed - worse) // 2 : changed] = 1
    return gate.Paired(ours.tolist(), theirs.tolist(), [str(i) for i in range(n)])


def outcome(found: gate.Decision, rule: str) -> str:
    return next(each.outcome for each in found.findings if each.rule == rule)


def test_a_better_model_is_promoted() -> None:
    decision = gate.decide(Gate(), evidence())
    assert decision.verdict == "promote", decision.why
    assert "400 prompts this gate can see a difference of 5.6 points" in decision.power


def test_500_prompts_see_5_points() -> None:
    """The number that the documentation states."""
    assert "a difference of 5.0 points" in gate.decide(Gate(), evidence(n=500)).power


@pytest.mark.parametrize(
    ("win", "verdict"), [(0.40, "refuse"), (0.5, "undecided"), (0.52, "undecided")]
)
def test_no_proven_gain_is_never_promoted(win: float, verdict: str) -> None:
    assert gate.decide(Gate(), evidence(win)).verdict == verdict


def test_too_few_prompts_say_how_many_are_needed() -> None:
    """Twelve wins of twelve prove nothing: the interval does not hold for so few."""
    decision = gate.decide(Gate(), evidence(1.0, 12))
    assert decision.verdict == "undecided"
    wins = next(each for each in decision.findings if each.rule == "wins")
    assert wins.needed == 30
    assert "12 judged prompts" in wins.about


def test_undecided_names_the_prompts_that_would_decide() -> None:
    wins = next(each for each in findings(Gate(), evidence(0.53)) if each.rule == "wins")
    assert wins.outcome == "undecided"
    # (1.645 + 0.842)^2 * 0.249 / 0.03^2
    assert wins.needed == pytest.approx(1717, rel=0.02)


def test_no_number_of_prompts_helps_a_model_that_does_not_win() -> None:
    wins = next(each for each in findings(Gate(), evidence(0.49)) if each.rule == "wins")
    assert wins.outcome == "undecided"
    assert wins.needed is None


def test_a_win_by_length_alone_is_not_promoted() -> None:
    """The longer answer wins on every prompt: at equal length nobody does."""
    generator = np.random.default_rng(1)
    longer = generator.random(N) < 0.75
    base = np.full(N, 1000)
    ours = np.where(longer, 1400, 800) + generator.integers(-50, 50, N)
    wins = np.where(generator.random(N) < 0.9, longer, ~longer).astype(float)
    found = evidence(wins=wins.tolist(), lengths=(ours.tolist(), base.tolist()))
    decision = gate.decide(Gate(), found)
    assert outcome(decision, "wins") == "pass"
    assert outcome(decision, "wins at equal length") != "pass"
    assert decision.verdict != "promote"


def test_twice_as_long_answers_fail() -> None:
    lengths = ([2000 + i for i in range(N)], [1000 + i for i in range(N)])
    assert outcome(gate.decide(Gate(), evidence(lengths=lengths)), "length") == "fail"


def test_a_proven_loss_of_reasoning_fails() -> None:
    worse = {"gsm8k": marks(90), "ifeval": marks(90)}
    decision = gate.decide(Gate(), evidence(reasoning=worse))
    assert outcome(decision, "reasoning") == "fail"
    assert outcome(decision, "gsm8k") == "fail"
    assert decision.verdict == "refuse"


def test_one_small_benchmark_cannot_prove_that_reasoning_is_kept() -> None:
    small = {"humaneval": marks(0, n=164, changed=32)}
    decision = gate.decide(Gate(), evidence(reasoning=small))
    reasoning = next(each for each in decision.findings if each.rule == "reasoning")
    assert reasoning.outcome == "undecided"
    assert decision.verdict == "undecided"
    assert reasoning.needed
    assert reasoning.needed > 164


def test_a_missing_benchmark_leaves_it_undecided() -> None:
    decision = gate.decide(Gate(), evidence(missing={"ifbench": "its questions cannot be read"}))
    assert decision.verdict == "undecided"
    assert "ifbench (not measured: its questions cannot be read)" in decision.why


def test_more_cut_answers_fail() -> None:
    cut = gate.Paired([1.0] * 80 + [0.0] * (N - 80), [0.0] * N, [str(i) for i in range(N)])
    found = evidence()
    decision = gate.decide(Gate(), replace(found, bad={**found.bad, "truncated": cut}))
    assert outcome(decision, "truncated answers") == "fail"
    lenient = Gate(more=Allowed(truncated=0.5))
    assert gate.decide(lenient, replace(found, bad={"truncated": cut})).verdict == "promote"


@pytest.mark.parametrize(
    ("changed", "rule"),
    [({"consistent": 100}, "judge's consistency"), ({"lost": 40}, "lost verdicts")],
)
def test_a_judge_that_cannot_be_trusted_fails(changed: dict[str, int], rule: str) -> None:
    decision = gate.decide(Gate(), evidence(**changed))
    assert outcome(decision, rule) == "fail"
    assert decision.verdict == "refuse"


def test_the_judge_that_made_the_preferences_is_named_or_refused() -> None:
    same = evidence(same_judge=True)
    named = gate.decide(Gate(), same).findings[-1]
    assert "may be the judge's own taste" in named.about
    assert gate.decide(Gate(), same).verdict == "promote"
    assert gate.decide(Gate(same_judge="refuse"), same).verdict == "refuse"


def test_the_decision_says_all_its_numbers() -> None:
    decision = gate.decide(Gate(), evidence())
    wins = decision.to_json()["findings"][0]
    assert wins["limit"] == 0.5
    assert wins["estimate"]["n"] == N
    assert wins["estimate"]["low"] == pytest.approx(0.6 - 1.645 * 0.4905 / 20, abs=1e-3)
    assert decision.why == "dpo passed all 12 rules against production"


def test_evidence_is_paired_by_prompt_whoever_is_named_first() -> None:
    tables: dict[str, list[dict[str, Any]]] = {
        "answers": [
            _answer("q1", "dpo", "long " * 9),
            _answer("q1", "base", "short"),
            _answer("q2", "base", "", finish_reason="length"),
            _answer("q2", "dpo", "I'm sorry, but I can't help with that."),
            {**_answer("q1", "dpo", "other benchmark"), "benchmark": "mt_bench"},
        ],
        "judgements": [
            _judgement("q1", "dpo", "base", 0.9, "AB"),
            _judgement("q2", "base", "dpo", 0.8, "AA"),
            _judgement("q3", "dpo", "base", None, ""),
            _judgement("q1", "dpo", "sft", 0.1, "AB"),
        ],
        "marks": [
            _mark("g1", "dpo", 1.0),
            _mark("g1", "base", 0.0),
            _mark("g2", "base", 1.0),
        ],
        "rejected": [
            {"benchmark": "head_to_head", "what": "judgements", "who": "dpo against base"},
            {"benchmark": "head_to_head", "what": "judgements", "who": "dpo against sft"},
        ],
    }

    def rows(table: str) -> Iterable[Row]:
        return tables[table]

    found = gate.evidence_of(
        rows, "dpo", "base", reasoning={"gsm8k": "right"}, missing={}, same_judge=False
    )
    assert found.wins == [0.9, pytest.approx(0.2)]
    assert found.lengths == ([45, 38], [5, 0])
    assert (found.consistent, found.in_both_orders, found.lost) == (1, 2, 2)
    assert found.reasoning["gsm8k"] == gate.Paired([1.0], [0.0], ["g1"])
    assert sum(found.bad["refused"].candidate) == 1
    assert sum(found.bad["truncated"].other) == 1


def test_a_benchmark_without_a_question_that_both_answered_is_missing() -> None:
    marks = [_mark("g1", "dpo", 1.0), _mark("g2", "base", 1.0)]
    found = gate.evidence_of(
        lambda table: marks if table == "marks" else [],
        "dpo",
        "base",
        reasoning={"gsm8k": "right"},
        missing={},
        same_judge=False,
    )
    assert found.missing == {"gsm8k": "no question has an answer of both dpo and base"}


def _answer(id: str, model: str, text: str, finish_reason: str = "stop") -> dict[str, Any]:
    return {
        "id": id,
        "benchmark": "head_to_head",
        "model": model,
        "text": text,
        "finish_reason": finish_reason,
    }


def _judgement(id: str, a: str, b: str, p: float | None, verdicts: str) -> dict[str, Any]:
    return {
        "id": id,
        "benchmark": "head_to_head",
        "model_a": a,
        "model_b": b,
        "p": p,
        "orders": [{"verdict": verdict} for verdict in verdicts],
    }


def _mark(id: str, entrant: str, value: float) -> dict[str, Any]:
    marked = [{"metric": "flexible", "value": 0.5}, {"metric": "right", "value": value}]
    return {"id": id, "benchmark": "gsm8k", "entrant": entrant, "group": "", "marks": marked}


def test_a_loop_is_repeated_and_a_list_is_not() -> None:
    words = "one thing after another in the house of the many doors"
    listed = "\n".join(f"{i}. {word.capitalize()} {i * i}" for i, word in enumerate(words.split()))
    assert repeated("I like it very much. " * 40)
    assert not repeated(listed * 2)
    assert not repeated("no " * 20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot provide this.", True),
        ("Unfortunately, I am unable to do so.", True),
        ("I can help with that.", False),
        ("Sorry is a song by Justin Bieber.", False),
        ("You cannot divide by zero.", False),
    ],
)
def test_refusals_are_told_by_how_they_begin(text: str, expected: bool) -> None:
    assert refused(text) is expected
