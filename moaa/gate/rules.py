"""The rules of the gate. Each compares a bound of an interval with a limit: pass, fail, undecided.

Every bound is one-sided at 95 %. All rules must pass for a promotion: an intersection-union test,
which needs no correction for their number. Formulas: Miller, "Adding Error Bars to Evals" (arXiv
2411.00640); Agresti and Min (2005) for right-or-wrong answers; Holm (1979) for the alarms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Final, Literal

import numpy as np

from moaa import statistics
from moaa.gate.evidence import Evidence, Paired
from moaa.recipe.gate import Gate
from moaa.statistics import Estimate

RuleOutcome = Literal["pass", "fail", "undecided"]

LEVEL: Final = 0.9
"""The level of two-sided intervals: each bound then holds at 95 %."""
ALARM: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """What one rule found."""

    rule: str
    outcome: RuleOutcome
    about: str
    """The finding, as a sentence."""
    estimate: Estimate | None = None
    """The measured number, with an interval of `LEVEL`. None: it could not be measured."""
    limit: float | None = None
    """The limit that the interval's bound is compared with."""
    needed: int | None = None
    """If undecided: how many items would decide, if the number stayed the same."""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as the decision's file has it."""
        return asdict(self)


def findings(gate: Gate, evidence: Evidence) -> list[RuleResult]:
    """Return what each rule found, in the order in which people read them."""
    return [
        wins(gate, evidence),
        equal_length(gate, evidence),
        length(gate, evidence),
        *reasoning(gate, evidence),
        *answers(gate, evidence),
        *judge(gate, evidence),
    ]


def wins(gate: Gate, evidence: Evidence) -> RuleResult:
    """Check that the candidate is preferred on more than half of the prompts, plus the margin."""
    rule, limit, p = "wins", 0.5 + gate.margin, evidence.wins
    if len(p) < gate.min_prompts:
        return _too_few(rule, len(p), gate.min_prompts, "judged prompts")
    found = statistics.mean(p, level=LEVEL)
    return _above(rule, found, limit, float(np.std(p, ddof=1)), "mean probability to win")


def equal_length(gate: Gate, evidence: Evidence) -> RuleResult:
    """Check that the candidate would be preferred if both answers were equally long. A margin below
    0 lets it be a little worse here too; a margin above 0 does not count here."""
    rule, p, limit = "wins at equal length", evidence.wins, 0.5 + min(gate.margin, 0)
    if len(p) < statistics.FEWEST:
        return _too_few(rule, len(p), statistics.FEWEST, "judged prompts")
    found = statistics.length_adjusted(p, evidence.lengths, level=LEVEL)
    return _above(rule, found, limit, float(np.std(p, ddof=1)), "probability to win")


def length(gate: Gate, evidence: Evidence) -> RuleResult:
    """Check that the answers are not much longer,
    by the ratio of the geometric means of characters."""
    rule, limit = "length", gate.max_length_ratio
    if len(evidence.wins) < 2:
        return _too_few(rule, len(evidence.wins), 2, "judged prompts")
    ours, theirs = (np.log(np.maximum(each, 1)) for each in evidence.lengths)
    logs = statistics.difference(ours, theirs, unit="log ratio", level=LEVEL)
    found = Estimate(
        math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.n, "ratio", LEVEL
    )
    outcome = _below(found, limit)
    return RuleResult(
        rule=rule,
        outcome=outcome,
        about=f"answers are {found.value:.2f} times as long, at most {found.high:.2f}; "
        f"allowed: {limit:g}",
        estimate=found,
        limit=limit,
        needed=_needed(logs.value - math.log(limit), float(np.std(ours - theirs, ddof=1)))
        if outcome == "undecided"
        else None,
    )


def reasoning(gate: Gate, evidence: Evidence) -> Iterator[RuleResult]:
    """Check that earlier abilities are kept: on the mean of all benchmarks,
    and with none far worse."""
    rule, limit = "reasoning", -gate.floor
    for name, reason in evidence.missing.items():
        yield RuleResult(rule=name, outcome="undecided", about=f"not measured: {reason}")
    if not evidence.reasoning:
        return
    differences = {name: _difference(each) for name, each in evidence.reasoning.items()}
    value, error, n = statistics.pooled((1.0, each) for each in differences.values())
    found = statistics.normal(value, error, n, "difference of shares", LEVEL)
    # One item counts as much as the standard deviation that gives this error over n items.
    yield _above(rule, found, limit, error * math.sqrt(n), f"mean of {', '.join(differences)}")
    p = {
        name: NormalDist().cdf((each.value + gate.benchmark_floor) / max(each.error, 1e-12))
        for name, each in differences.items()
    }
    for name, adjusted in statistics.holm(p).items():
        worse = adjusted < ALARM
        yield RuleResult(
            rule=name,
            outcome="fail" if worse else "pass",
            about=f"{_points(differences[name].value)} points; "
            + (
                f"worse by more than {100 * gate.benchmark_floor:g}"
                if worse
                else f"not proven to be worse by more than {100 * gate.benchmark_floor:g}"
            ),
            estimate=differences[name],
            limit=-gate.benchmark_floor,
        )


def answers(gate: Gate, evidence: Evidence) -> Iterator[RuleResult]:
    """Check that answers are not cut, empty, repeated or refused much more often."""
    for name, paired in evidence.bad.items():
        rule, limit = f"{name} answers", getattr(gate.more, name)
        if len(paired.groups) < 2:
            yield _too_few(rule, len(paired.groups), 2, "prompts that both answered")
            continue
        found = _difference(paired)
        outcome = _below(found, limit)
        share = sum(paired.candidate) / len(paired.candidate)
        sd = math.sqrt(_changed(paired))
        yield RuleResult(
            rule=rule,
            outcome=outcome,
            about=f"{_points(share)} % of the answers, {_points(found.value)} points against "
            f"{evidence.other}, at most {_points(found.high)}; allowed: {_points(limit)}",
            estimate=found,
            limit=limit,
            needed=_needed(found.value - limit, sd) if outcome == "undecided" else None,
        )


def judge(gate: Gate, evidence: Evidence) -> Iterator[RuleResult]:
    """Check the judge: it agrees with itself, judges nearly all pairs,
    and did not label the data."""
    if both := evidence.in_both_orders:
        found = statistics.share(evidence.consistent, both)
        yield RuleResult(
            rule="judge's consistency",
            outcome="pass" if found.value >= gate.min_consistency else "fail",
            about=f"{_points(found.value)} % of {both} pairs are judged alike in both orders; "
            f"asked for: {100 * gate.min_consistency:g} %",
            estimate=found,
            limit=gate.min_consistency,
        )
    if pairs := evidence.lost + len(evidence.wins):
        found = statistics.share(evidence.lost, pairs)
        yield RuleResult(
            rule="lost verdicts",
            outcome="pass" if found.value <= gate.max_lost_verdicts else "fail",
            about=f"{evidence.lost} of {pairs} pairs could not be judged; "
            f"allowed: {100 * gate.max_lost_verdicts:g} %",
            estimate=found,
            limit=gate.max_lost_verdicts,
        )
    same, refuse = evidence.same_judge, gate.same_judge == "refuse"
    yield RuleResult(
        rule="held-out judge",
        outcome="fail" if same and refuse else "pass",
        about="the judge also made the preferences that the candidate was trained on: its wins may "
        "be the judge's own taste"
        if same
        else "the judge is not the one that made the preferences",
    )


def _above(rule: str, found: Estimate, limit: float, sd: float, what: str) -> RuleResult:
    unit = "%" if found.unit == "share" else "points"
    if found.low > limit:
        outcome: RuleOutcome = "pass"
    else:
        outcome = "fail" if found.high < limit else "undecided"
    needed = _needed(limit - found.value, sd) if outcome == "undecided" else None
    return RuleResult(
        rule=rule,
        outcome=outcome,
        about=f"{what}: {_points(found.value)} {unit}, at least {_points(found.low)}; "
        f"asked for: more than {_points(limit)}",
        estimate=found,
        limit=limit,
        needed=needed,
    )


def _below(found: Estimate, limit: float) -> RuleOutcome:
    if found.high <= limit:
        return "pass"
    return "fail" if found.low > limit else "undecided"


def _too_few(rule: str, n: int, fewest: int, what: str) -> RuleResult:
    return RuleResult(
        rule=rule,
        outcome="undecided",
        about=f"{n} {what}: it needs at least {fewest}",
        needed=fewest,
    )


def _needed(beyond: float, sd: float) -> int | None:
    """Return how many items decide for the candidate at 80 % power;
    None if its number is too low."""
    if beyond >= 0 or sd == 0:
        return None
    return statistics.required_n(-beyond, sd, one_sided=True)


def _difference(paired: Paired) -> Estimate:
    """Return the paired difference: Agresti and Min's
    for single right-or-wrong items, else clustered."""
    single = len(set(paired.groups)) == len(paired.groups)
    if single and set(paired.candidate) | set(paired.other) <= {0.0, 1.0}:
        ours, theirs = ([each > 0 for each in side] for side in (paired.candidate, paired.other))
        return statistics.binary_difference(ours, theirs, level=LEVEL)
    return statistics.difference(paired.candidate, paired.other, paired.groups, level=LEVEL)


def _changed(paired: Paired) -> float:
    """Return the share of items on which the models differ, at least half an item:
    else nothing is known."""
    changed = sum(a != b for a, b in zip(paired.candidate, paired.other, strict=True))
    return max(changed, 0.5) / len(paired.groups)


def _points(share: float) -> str:
    return f"{100 * share:.1f}"
