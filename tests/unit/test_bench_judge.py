"""The bench of the adaptive judge: what it simulates, reads and counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bench.judge import KINDS, Score, disagreement, recorded, score, simulated

EARLIER = Path(__file__).parent / "data/earlier/s3/demo/label"


def test_a_judge_as_consistent_as_the_papers_is_right_as_often_on_pairs() -> None:
    played = simulated(KINDS["as consistent as the paper's"], 1500)
    right = [
        (p > 0.5) == (truth[i] > truth[j])
        for verdicts, truth in played
        for (i, j), p in verdicts.items()
    ]
    assert np.mean(right) == pytest.approx(0.856, abs=0.01)


def test_the_adaptive_judge_agrees_with_it_for_less_than_half_of_the_calls() -> None:
    tournaments = [verdicts for verdicts, _ in simulated(KINDS["right in 93 %"], 30)]
    found = score(tournaments, confidence=0.915)
    assert found.n == 30
    assert found.calls < 0.5
    assert min(found.chosen, found.rejected) >= 0.93


def test_all_calls_are_needed_to_agree_for_sure() -> None:
    (tournament,) = [verdicts for verdicts, _ in simulated(KINDS["right in 93 %"], 1)]
    even = dict.fromkeys(tournament, 0.5)
    assert score([even], confidence=0.999, share=1.0) == Score(1, 1, 1, 1)


def test_recorded_tournaments_are_read_if_they_are_complete() -> None:
    files = sorted(EARLIER.glob("*/judgements/*.parquet"))
    tournaments = list(recorded(files))
    assert [len(each) for each in tournaments] == [20, 20, 20]
    assert 0 <= disagreement(tournaments) <= 1
