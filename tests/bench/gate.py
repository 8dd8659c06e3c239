"""How often the gate promotes what it should not, and what it should: simulated retrainings.

    python -m tests.bench.gate [--retrainings 2000] [--prompts 805]

Each retraining is evidence drawn at random: a win probability on every prompt (standard deviation
0.4, as on published verdicts), lengths that may sway the judge, five benchmarks of reasoning (their
published numbers of questions, a share of answers that differ), bad answers. A row of the table is
one truth: what is really so in all of its retrainings.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from moaa.gate import Evidence, Paired, decide
from moaa.gate.rules import findings, wins
from moaa.recipe.gate import Gate
from tests.bench.client import _commit, _cpu

QUESTIONS: Final = {
    "gsm8k": 1319,
    "ifeval": 541,
    "mmlu_pro": 2000,
    "ifbench": 294,
    "humaneval": 164,
}
SHARPNESS: Final = 3.2
"""Makes the standard deviation of the win probabilities 0.40."""
EDGE: Final = Gate()


@dataclass(frozen=True)
class Truth:
    """What is so in every retraining of a row."""

    name: str
    gain: float = 0.0
    """Points of win rate above one half, at equal length."""
    longer: float = 1.0
    """Ratio of the geometric mean lengths."""
    sway: float = 0.0
    """How much the longer answer is preferred: log-odds at the largest difference."""
    reasoning: float = 0.0
    """True difference on every benchmark."""
    changed: float = 0.2
    """Share of the questions that the models answer differently."""
    truncated: float = 0.03
    """Share of cut answers; 0.03 for the other model."""


TRUTHS: Final = (
    Truth("nothing gained"),
    Truth("nothing gained, but longer, and the judge likes that", longer=1.15, sway=1.5),
    Truth("won, but reasoning is worse by the floor", gain=0.1, reasoning=-EDGE.floor),
    Truth("won, but as much longer as allowed", gain=0.1, longer=EDGE.max_length_ratio),
    Truth("won, but so many more cut answers", gain=0.1, truncated=0.03 + EDGE.more.truncated),
    Truth("a gain of 6 points", gain=0.06),
    Truth("a gain of 3 points", gain=0.03),
)


def _odds(gain: float) -> float:
    """The mean of the normal log-odds whose probabilities have mean 0.5 + gain."""
    draws = np.random.default_rng(0).normal(size=200_000) * SHARPNESS
    low, high = 0.0, 5.0
    for _ in range(40):
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-(draws + middle)))).mean() < 0.5 + gain:
            low = middle
        else:
            high = middle
    return low


def evidence(truth: Truth, prompts: int, odds: float, draw: np.random.Generator) -> Evidence:
    """One retraining of this truth."""
    log_lengths = draw.normal(6.5, 0.6, prompts)
    ours = log_lengths + np.log(truth.longer) + draw.normal(0, 0.35, prompts)
    theirs = log_lengths + draw.normal(0, 0.35, prompts)
    difference = np.exp(ours) - np.exp(theirs)
    sway = truth.sway * np.tanh(difference / difference.std())
    p = 1 / (1 + np.exp(-(odds + sway + draw.normal(size=prompts) * SHARPNESS)))
    items = [str(i) for i in range(prompts)]
    few = Paired([0.0] * prompts, [0.0] * prompts, items)
    cut = Paired(
        _rare(truth.truncated, prompts, draw).tolist(), _rare(0.03, prompts, draw).tolist(), items
    )
    return Evidence(
        "dpo",
        "production",
        wins=p.tolist(),
        lengths=(np.exp(ours).astype(int).tolist(), np.exp(theirs).astype(int).tolist()),
        bad={"truncated": cut, "empty": few, "repeated": few, "refused": few},
        reasoning={name: _marks(truth, n, draw) for name, n in QUESTIONS.items()},
        consistent=round(0.85 * prompts),
        in_both_orders=prompts,
    )


def _rare(share: float, n: int, draw: np.random.Generator) -> NDArray[np.float64]:
    return (draw.random(n) < share).astype(float)


def _marks(truth: Truth, n: int, draw: np.random.Generator) -> Paired:
    kind = draw.random(n)
    better = kind < (truth.changed + truth.reasoning) / 2
    worse = (kind >= (truth.changed + truth.reasoning) / 2) & (kind < truth.changed)
    both = ~better & ~worse & (draw.random(n) < 0.6)
    return Paired(
        (better | both).astype(float).tolist(),
        (worse | both).astype(float).tolist(),
        [str(i) for i in range(n)],
    )


def promoted(gate: Gate, found: Evidence) -> bool:
    """Whether the gate promotes; the dear rule is only looked at if the others pass."""
    if wins(gate, found).outcome != "pass":
        return False
    short = replace(found, wins=[], lengths=([], []))
    others = [each for each in findings(gate, short) if each.rule not in _OF_WINS]
    if any(each.outcome != "pass" for each in others):
        return False
    return decide(gate, found).verdict == "promote"


_OF_WINS: Final = frozenset({"wins", "wins at equal length", "length"})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--retrainings", type=int, default=2000)
    parser.add_argument("--prompts", type=int, default=805)
    given = parser.parse_args()
    print(f"{_cpu()}, commit {_commit()}; {given.prompts} prompts")
    print("| truth | retrainings | promoted | wins passed |")
    print("|---|---|---|---|")
    for seed, truth in enumerate(TRUTHS):
        draw = np.random.default_rng(seed)
        odds = _odds(truth.gain)
        drawn = [evidence(truth, given.prompts, odds, draw) for _ in range(given.retrainings)]
        won = [wins(EDGE, each).outcome == "pass" for each in drawn]
        count = sum(promoted(EDGE, each) for each in drawn)
        print(
            f"| {truth.name} | {len(drawn)} | {count / len(drawn):.1%} | "
            f"{sum(won) / len(won):.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
