"""Arena-Hard's style control on simulated verdicts over published answers: the truth is known.

The styles are those of gpt-3.5-turbo-0125 against the baseline gpt-4-0314, so the features are as
skewed and as correlated as in life. Only the verdicts are simulated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moaa.benchmarks.arena_hard import DIGESTS, ArenaHard
from moaa.benchmarks.data import digest
from moaa.recipe.load import load_file
from moaa.statistics import battle_rate, style_controlled, style_difference, style_of
from moaa.statistics.logistic import Array
from tests.real.conftest import Read
from tests.support.arena import battles_of, true_rate
from tests.support.paths import RECIPES

SIMULATIONS = 200


@pytest.fixture(scope="module", params=["gpt-3.5-turbo-0125", "gpt-4-0613"])
def styles(request: pytest.FixtureRequest, read: Read) -> Array:
    """The difference of styles of each of the 500 prompts, shape (500, 4)."""
    model, baseline = (
        {row["uid"]: text_of(row) for row in read(f"arena_hard/v0.1/{name}.jsonl")}
        for name in (request.param, "gpt-4-0314")
    )
    return np.array(
        [
            style_difference(style_of(text, len(text.split())), style_of(other, len(other.split())))
            for text, other in ((model[uid], baseline[uid]) for uid in sorted(model))
        ]
    )


def text_of(row: dict[str, Any]) -> str:
    text = row["messages"][-1]["content"]["answer"]
    assert isinstance(text, str)
    return text


def test_bias_and_coverage(styles: Array, request: pytest.FixtureRequest) -> None:
    assert styles.shape == (500, 4)
    values, covered = [], 0
    for seed in range(SIMULATIONS):
        found = style_controlled(battles_of(seed, styles), resamples=200, level=0.9)
        values.append(found.value)
        covered += found.low <= true_rate() <= found.high
    raw = np.mean([battle_rate(battles_of(s, styles), resamples=2).value for s in range(20)])
    bias = 100 * (np.mean(values) - true_rate())
    print(
        f"truth {100 * true_rate():.2f}, raw {100 * raw:.2f}, bias {bias:.2f} points, "
        f"coverage of the 90 % interval {100 * covered / SIMULATIONS:.1f} %"
    )
    assert abs(bias) < 1
    assert covered / SIMULATIONS >= 0.88


@pytest.mark.parametrize(
    ("version", "baseline"), [("v0.1", "gpt-4-0314"), ("v2.0", "o3-mini-2025-01-31")]
)
def test_the_published_prompts_are_known_by_their_digest(
    version: str, baseline: str, read: Read
) -> None:
    named = "evaluate.benchmarks.arena_hard"
    sets = [f"{named}={{}}", f"{named}.version={version}"]
    recipe = load_file(RECIPES / "demo.yaml", sets).recipe
    settings = recipe.evaluate.benchmarks.arena_hard
    assert settings
    benchmark = ArenaHard(settings, recipe)
    rows = read(f"arena_hard/{version}/question.jsonl")
    items = benchmark.items(rows + read(f"arena_hard/{version}/{baseline}.jsonl"))
    assert len(items) == 500
    assert digest(items) == DIGESTS[version]
    assert "published ones" not in benchmark.incomparable(items)
    assert "published ones" in benchmark.incomparable(items[:100])
