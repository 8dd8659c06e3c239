"""The adaptive judge at its default settings: what it costs, and whether it keeps the outcome."""

from __future__ import annotations

from statistics import fmean

from moaa.recipe.schema import Judge
from tests.bench.judge import KINDS, score, simulated

SEEDS = (1, 2, 77)
PROMPTS = 300


def test_a_judge_as_consistent_as_the_papers_keeps_the_outcome_for_45_percent_of_the_calls() -> (
    None
):
    """Pooled over seeds: one sample of a few hundred prompts is within a percent of the truth."""
    chosen = Judge.model_fields["confidence"].default, Judge.model_fields["max_calls_share"].default
    kind = KINDS["as consistent as the paper's"]
    found = [
        score([verdicts for verdicts, _ in simulated(kind, PROMPTS, seed)], *chosen)
        for seed in SEEDS
    ]
    print(*found, sep="\n")
    assert sum(each.n for each in found) == len(SEEDS) * PROMPTS
    assert fmean(each.calls for each in found) <= 0.45
    assert fmean(each.chosen for each in found) >= 0.95
    assert fmean(each.rejected for each in found) >= 0.95
