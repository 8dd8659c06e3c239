"""How often the adaptive judge picks the exhaustive judge's best and worst answer, for which calls.

    python -m tests.bench.judge [--prompts 300] [--confidence 0.9 …] [--recorded FILE.parquet …]
        [--scores FILE]

Every tournament is played from verdicts that are there already, five answers each:

simulated   judges of several kinds; a verdict's log-odds are the difference of two strengths, plus
            position bias, plus noise of the pair and of the order. All are right in 85.6 % of pairs
            in one order, as the paper's judge on RewardBench, unless the table says otherwise.
recorded    tables `judgements` of runs with an exhaustive judge
scores      published preferences against one baseline (`alpaca_lc.json.gz`: models, preferences):
            real differences between answers; noise is simulated
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moaa.judge.outlook import Meeting, Rule, calls, next_round, outlook
from tests.bench.client import _commit, _cpu

Tournament = dict[Meeting, float]
"""Of every meeting, the probability that the answer shown first is better."""
ANSWERS: Final = 5
FIRST, SECOND = 5, 4
"""Calls of a pair's first and second order, with three proposers."""
CONFIDENCES: Final = (0.6, 0.8, 0.915, 0.97)


class Kind(NamedTuple):
    """A simulated judge, in log-odds: standard deviations of strengths and noise; mean and standard
    deviation (over prompts) of the position bias."""

    strength: float
    pair: float
    order: float
    bias: float = 0.3
    bias_sd: float = 0.3
    hard: bool = False


KINDS: Final = {
    "as consistent as the paper's": Kind(3, 1.4, 1.4),
    "the same, twice as sharp": Kind(6, 2.8, 2.8, 0.6, 0.6),
    "the same, only 0 or 1": Kind(3, 1.4, 1.4, hard=True),
    "the same, noise of pairs": Kind(3, 1.6, 0.8),
    "right in 75 %, prefers the first": Kind(2, 0.7, 1, 2, 0.5),
    "right in 93 %": Kind(4, 0.9, 0.9),
}


class Score(NamedTuple):
    """Shares over tournaments."""

    chosen: float
    rejected: float
    calls: float
    n: int


def simulated(kind: Kind, prompts: int, seed: int = 0) -> list[tuple[Tournament, list[float]]]:
    """Tournaments of this judge, each with the true strengths of its answers."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(prompts):
        strengths = draw.normal(size=ANSWERS) * kind.strength
        found.append((_verdicts(strengths, kind, draw), strengths.tolist()))
    return found


def _verdicts(strengths: NDArray[np.float64], kind: Kind, draw: np.random.Generator) -> Tournament:
    bias = kind.bias + kind.bias_sd * draw.normal()
    special = {pair: kind.pair * draw.normal() for pair in combinations(range(ANSWERS), 2)}
    verdicts = {}
    for first, second in permutations(range(ANSWERS), 2):
        own = special.get((first, second), -special.get((second, first), 0.0))
        odds = strengths[first] - strengths[second] + own + bias + kind.order * draw.normal()
        verdicts[first, second] = float(odds > 0) if kind.hard else float(1 / (1 + np.exp(-odds)))
    return verdicts


def recorded(files: Iterable[Path]) -> Iterator[Tournament]:
    """The complete tournaments in tables `judgements`."""
    import pyarrow.parquet as parquet

    found: dict[tuple[str, str], Tournament] = {}
    for file in files:
        for text in parquet.read_table(file, columns=["row"])["row"].to_pylist():
            row = json.loads(text)
            verdicts = found.setdefault((str(file.parent), row["id"]), {})
            if row["p"] is not None:
                verdicts[row["a"], row["b"]] = row["p_ab"]
                verdicts[row["b"], row["a"]] = 1 - row["p_ba"]
    for verdicts in found.values():
        n = 1 + max((first for first, _ in verdicts), default=0)
        if n > 1 and len(verdicts) == n * (n - 1):
            yield verdicts


def published(file: Path, prompts: int, kind: Kind) -> Iterator[Tournament]:
    """Five models' answers to an instruction: their strengths are the log-odds of the published
    preferences against the baseline; the noise is this judge's."""
    draw = np.random.default_rng(0)
    models = json.loads(gzip.decompress(file.read_bytes()))["models"].values()
    by_instruction: dict[int, list[float]] = {}
    for model in models:
        for index, preference in zip(model["index"], model["preference"], strict=True):
            by_instruction.setdefault(index, []).append(preference - 1)  # 2: wins
    for preferences in list(by_instruction.values())[:prompts]:
        if len(preferences) >= ANSWERS:
            p = np.clip(draw.permutation(preferences)[:ANSWERS], 1e-4, 1 - 1e-4)
            yield _verdicts(np.log(p / (1 - p)), kind, draw)


def score(tournaments: Sequence[Tournament], confidence: float, share: float = 0.8) -> Score:
    """How the adaptive judge does. An answer that ties with the exhaustive one's agrees with it."""
    agreed, spent = [], []
    for verdicts in tournaments:
        n = 1 + max(first for first, _ in verdicts)
        whole = n * (n - 1) // 2 * (FIRST + SECOND)
        rule = Rule(confidence, share * whole, FIRST, SECOND)
        seen: dict[Meeting, float | None] = {}
        while meetings := next_round(n, seen, rule, range(n)):
            seen |= {meeting: verdicts[meeting] for meeting in meetings}
        wins = [
            round(sum(verdicts[i, j] + 1 - verdicts[j, i] for j in range(n) if j != i), 9)
            for i in range(n)
        ]
        view = outlook(n, seen, range(n))
        agreed.append((wins[view.best] == max(wins), wins[view.worst] == min(wins)))
        spent.append(sum(calls(seen, rule).values()) / whole)
    chosen, rejected = np.mean(agreed, axis=0)
    return Score(float(chosen), float(rejected), float(np.mean(spent)), len(agreed))


def consistency(tournaments: Sequence[Tournament], strengths: Sequence[Sequence[float]]) -> str:
    """How often one order is right, and how often two orders disagree."""
    right = [
        (p > 0.5) == (truth[i] > truth[j])
        for verdicts, truth in zip(tournaments, strengths, strict=True)
        for (i, j), p in verdicts.items()
    ]
    return f"{np.mean(right):.1%} | {disagreement(tournaments):.1%}"


def disagreement(tournaments: Iterable[Tournament]) -> float:
    """The share of pairs whose two orders prefer different answers."""
    return float(
        np.mean([(v[i, j] > 0.5) == (v[j, i] > 0.5) for v in tournaments for i, j in v if i < j])
    )


def curve(
    name: str, facts: str, tournaments: Sequence[Tournament], confidences: Sequence[float]
) -> None:
    """Print a row for each confidence."""
    for confidence in confidences:
        found = score(tournaments, confidence)
        print(
            f"| {name} | {facts} | {confidence:g} | {found.calls:.1%} | {found.chosen:.1%} | "
            f"{found.rejected:.1%} | {found.n} |",
            flush=True,
        )


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--confidence", type=float, nargs="+", default=CONFIDENCES)
    parser.add_argument("--recorded", type=Path, nargs="*", default=[])
    parser.add_argument("--scores", type=Path)
    options = parser.parse_args()
    print(f"{_cpu()}, load {os.getloadavg()[0]:.1f}, commit {_commit()}\n")
    print(
        "| judge | one order is right | orders disagree | confidence | calls | same chosen | "
        "same rejected | prompts |\n|---|---|---|---|---|---|---|---|"
    )
    for name, kind in KINDS.items():
        tournaments, truth = zip(*simulated(kind, options.prompts), strict=True)
        curve(name, consistency(tournaments, truth), tournaments, options.confidence)
    if options.scores:
        given = list(published(options.scores, options.prompts, Kind(0, 1.4, 1.4)))
        curve("published preferences", f"| {disagreement(given):.1%}", given, options.confidence)
    if options.recorded:
        given = list(recorded(options.recorded))
        curve("recorded", f"| {disagreement(given):.1%}", given, options.confidence)


if __name__ == "__main__":
    main()
