"""How a sweep's variants compare: scores with intervals, and costs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from moaa import sweeps
from moaa.recipe.load import digest_of
from moaa.sweeps.comparison import VariantOutcome, scores_of
from tests.support import example_run
from tests.support.small_sweep import written


@pytest.fixture
def sweep(tmp_path: Path) -> sweeps.Sweep:
    return sweeps.load(written(tmp_path))


def test_a_comparison_has_scores_with_intervals_and_own_costs(sweep: sweeps.Sweep) -> None:
    first, second, third, fourth = sweep.variants
    empty = example_run.ExampleRun().view
    outcomes = [
        sweeps.outcome(first, example_run.whole().view),
        sweeps.outcome(second, example_run.reused().view),
        sweeps.outcome(third, example_run.failed().view),
        sweeps.outcome(fourth, empty, "over the budget"),
    ]
    done, reused, failed, missing = outcomes
    assert done.calls > 0
    assert (reused.calls, reused.scores) == (0, done.scores)
    score = done.scores["win rate against base"]["dpo"]
    assert score.low is not None
    assert score.high is not None
    assert score.low < score.value < score.high
    assert (failed.state, missing.state) == ("failed", "over the budget")
    assert failed.error
    page = sweeps.page(sweep, outcomes)
    assert score.text in page
    every = [each for measure in done.scores.values() for each in measure.values()]
    assert page.count('role="img"') == 2 * sum(each.share for each in every) > 0
    assert "--set label.labeller=random" in page
    assert "the paper&#39;s" in page
    assert "over the budget" in page


@pytest.mark.parametrize("at", ["made again", "failed", "running"])
def test_results_of_a_variant_before_it_was_changed_are_not_its_scores(
    sweep: sweeps.Sweep, at: str
) -> None:
    """The changed variant goes on in the same run, and was stopped before its evaluation."""
    run = example_run.whole()
    again = run.record("label")
    if at == "made again":
        again["manifest"]["fingerprint"] = "f" * 24
    else:
        again |= {"status": at, "manifest": None}
    found = sweeps.outcome(sweep.variants[0], run.view)
    assert found.scores == {}
    assert found.state == {"made again": "partial", "running": "unfinished"}.get(at, at)
    assert sweeps.outcome(sweep.variants[0], example_run.whole().view).scores


def test_a_variant_that_was_changed_and_not_run_has_no_scores(sweep: sweeps.Sweep) -> None:
    """`--compare` showed those of the recipe before as its own."""
    variant, run = sweep.variants[0], example_run.whole()
    for record in run.records:
        record["recipe"] = digest_of(variant.loaded.recipe)
    assert sweeps.outcome(variant, run.view).state == "done"
    other = sweeps.outcome(sweep.variants[1], run.view)
    assert (other.state, other.scores) == ("changed since it ran", {})


def test_later_rounds_of_a_variant_before_it_was_changed_are_not_its_scores(
    sweep: sweeps.Sweep,
) -> None:
    variant, run = sweep.variants[0], example_run.whole()
    second = [{**record, "round": 2} for record in run.records if record["stage"] != "preflight"]
    for record in run.records:
        record["recipe"] = digest_of(variant.loaded.recipe)
    run.records += second
    for record in second:
        record["started"] = "2026-11-25T08:00:00+00:00"
    assert sweeps.outcome(variant, run.view).scores
    run.record("label")["started"] = "2026-11-25T09:00:00+00:00"  # the first round was run again
    assert sweeps.outcome(variant, run.view).scores == {}
    assert sweeps.outcome(sweep.variants[1], run.view).state == "changed since it ran"


def test_the_hours_of_own_gpus_are_compared_too(sweep: sweeps.Sweep) -> None:
    """A sweep on own GPUs has no dollars of an API, and compared without any cost."""
    run, again = example_run.whole(), example_run.reused()
    for each in (run, again):
        each.record("preflight")["facts"]["gpus"] = {
            "sft": {"gpus": 8, "hour_usd": 16.0}, "dpo": {"gpus": 4, "hour_usd": 8.0},
        }  # fmt: skip
    hours = (8 * run.view.stage("sft").seconds + 4 * run.view.stage("dpo").seconds) / 3600
    found = sweeps.outcome(sweep.variants[0], run.view)
    assert found.gpus == pytest.approx((hours, 2 * hours))
    assert found.to_json()["gpu_usd"] == pytest.approx(2 * hours)
    page = sweeps.page(sweep, [found, sweeps.outcome(sweep.variants[1], again.view)])
    assert f"<td>{hours:,.2f}</td><td>{2 * hours:,.2f}</td>" in page
    assert sweeps.outcome(sweep.variants[1], again.view).gpus is None, "reused: nothing was held"


def test_benchmarks_give_their_main_numbers_with_the_judge() -> None:
    def score(entrant: str, main: bool) -> dict[str, Any]:
        numbers = {"value": 7.5, "low": 7.0, "high": 8.0, "n": 80}
        return {"entrant": entrant, "metric": "rating", "main": main, **numbers}

    rated = {"judge": "qwen2-72b", "scores": [score("sft", True), score("sft", False)]}
    games = {"judge": "", "scores": [score("dpo", True)]}
    found = scores_of({"benchmarks": {"mt_bench": rated, "head_to_head": games}})
    assert list(found) == ["mt_bench: rating, judged by qwen2-72b"]
    ((model, rating),) = found.popitem()[1].items()
    assert (model, rating.text) == ("sft", "7.500 (7.000 to 8.000), n 80")


def test_a_comparison_has_a_table_for_each_measure_that_fits_a_terminal(
    sweep: sweeps.Sweep,
) -> None:
    """As one table, with a column for each score, a page showed four of thirteen columns."""
    first, second, *_ = sweep.variants
    rates = [
        {"model": model, "against": "base", "rate": 0.5, "low": 0.25, "high": 0.75, "n": 4}
        for model in ("sft", "dpo")
    ]
    scores = [
        {"entrant": who, "metric": "rating", "main": True, "value": 8, "low": 5, "high": 10, "n": 2}
        for who in ("base", "sft", "dpo")
    ]
    judged = {"mt_bench": {"judge": "smollm2, all criteria", "scores": scores}}
    found = scores_of({"win_rates": rates, "benchmarks": judged})
    outcomes = [VariantOutcome(first, "done", found), VariantOutcome(second, "failed", {})]
    screen = io.StringIO()
    Console(width=100, file=screen).print(sweeps.tables(outcomes))
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    assert "win rate against base" in lines
    assert "mt_bench: rating, judged by smollm2, all criteria" in lines
    rows = [line for line in lines if line.startswith(first.name)]
    assert rows[0].split("  ")[1:] == ["0.500 (0.250 to 0.750), n 4"] * 2
    assert rows[1].count("8.000 (5.000 to 10.000), n 2") == 3
    page = sweeps.page(sweep, outcomes)
    assert page.count("<h3>") == 2
    assert page.count('scope="row"') == 3 * len(outcomes)
