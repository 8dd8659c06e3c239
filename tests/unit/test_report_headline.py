"""What a run says first: the win rate against whom the gate compares with, wherever it is shown."""

from __future__ import annotations

import re
from typing import Any

import pytest

from moaa import report
from moaa.report.figures import figures
from moaa.report.text import stage_markdown
from moaa.stages.table import EVALUATE
from tests.support.example_run import ExampleRun, whole
from tests.support.page import shown


def facts(run: ExampleRun) -> dict[str, Any]:
    found: dict[str, Any] = run.record("evaluate")["manifest"]["facts"]
    return found


def first_said(run: ExampleRun) -> dict[str, str]:
    """Whom the first win rate is against, in each place that shows one."""
    summary = report.summary(run.view)
    sentence, line = r"(?:beats|loses to|from) the (\S+) model", r"(?i)dpo +against (\S+)"
    places = {
        "verdict": (sentence, run.view.verdict),
        "page": (line, shown(run).text),
        "summary": (sentence, summary),
        "table of the summary": (line, summary),
        "stage": (r"against (\S+)", EVALUATE.headline({}, facts(run))),
        "stage on Kubeflow": (sentence, stage_markdown(run.record("evaluate"))),
    }
    return {
        place: found[1] if (found := re.search(pattern, text)) else ""
        for place, (pattern, text) in places.items()
    }


@pytest.mark.parametrize(
    ("others", "who"),
    [
        (("base", "production"), "production"),
        (("base",), "base"),
        (("first", "base"), "base"),
        (("first", "base", "production"), "production"),
        (("first",), "first"),
    ],
    ids=["production", "none yet", "a later round", "a later round, production", "no base"],
)
def test_production_comes_first_then_base_then_the_first_contestant(
    others: tuple[str, ...], who: str
) -> None:
    run = whole(*others)
    said = first_said(run)
    assert said == dict.fromkeys(said, who)


def test_a_version_in_production_that_could_not_be_judged_is_no_headline() -> None:
    """It was a contestant, but no pair with it has a verdict."""
    run = whole("base", "production")
    found = facts(run)
    found["contestants"] = ["base", "production", "sft", "dpo"]
    found["win_rates"] = [r for r in found["win_rates"] if r["against"] != "production"]
    assert "base model" in run.view.verdict
    assert next(iter(figures(found))) == "dpo win rate"


def test_kubeflows_metrics_name_both_and_keep_the_meaning_of_each() -> None:
    """A name means the same in every run that Kubeflow compares: `win rate` is against base."""
    one, both = facts(whole("base")), facts(whole("base", "production"))
    found = figures(both)
    names = [name for name in found if name.startswith("dpo ") and "_" not in name]
    assert names == [
        "dpo v production",
        "dpo v production low",
        "dpo v production high",
        "dpo win rate",
        "dpo win rate low",
        "dpo win rate high",
    ]
    against = {(r["model"], r["against"]): r["rate"] for r in both["win_rates"]}
    assert found["dpo v production"] == against["dpo", "production"]
    assert found["dpo win rate"] == against["dpo", "base"]
    assert len({name[:20] for name in figures({"win_rates": both["win_rates"]})}) == 13
    assert "dpo v production" not in figures(one)
