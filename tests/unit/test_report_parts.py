"""The report without its page: the text summary, the Markdown of a stage, the charts."""

from __future__ import annotations

import copy
import math
import re

import pytest

from moaa import report
from moaa.records import Record
from moaa.report import charts
from moaa.report.tables import plan
from moaa.report.view import RunView, judged
from moaa.stages.table import stages
from tests.support import example_run
from tests.support.records import record


def rate(value: float, low: float, high: float) -> dict:
    return {
        "model": "dpo",
        "against": "base",
        "rate": value,
        "low": low,
        "high": high,
        "n": 40,
        "wins": 1,
        "ties": 0,
    }


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0.7, 0.55, 0.8), "beats"),
        ((0.3, 0.2, 0.45), "loses to"),
        ((0.6, 0.45, 0.74), "No difference"),
    ],
)
def test_the_interval_decides_what_is_said(numbers: tuple[float, float, float], words: str) -> None:
    assert words in judged(rate(*numbers))


def test_the_summary_of_a_whole_run() -> None:
    run = example_run.whole()
    text = report.summary(run.view)
    lines = text.splitlines()
    assert len(lines) <= 32
    assert lines[0] == "demo: done in 11 min 03 s"
    assert re.search(r"generate +done +1 min 28 s +23 of 24 rows", text)
    dpo = next(
        r for r in run.record("evaluate")["manifest"]["facts"]["win_rates"] if r["model"] == "dpo"
    )
    assert f"{100 * dpo['rate']:.1f}" in text
    assert "667,890 in, 67,652 out, 1,349 calls, $0.09" in text


def test_the_summary_of_a_failed_run_names_the_stage_and_leaves_the_error_to_its_caller() -> None:
    error = {"type": "EngineError", "message": "\n".join(f"line {i}" for i in range(100))}
    text = report.summary(example_run.failed("generate", error).view)
    assert "line 0" not in text
    assert len(text.splitlines()) <= 32
    assert re.search(r"generate +failed", text)
    assert re.search(r"dpo +not run", text)


def test_a_long_reason_is_one_line_of_the_summary_and_nothing_below_it_is_lost() -> None:
    run = example_run.whole()
    why = "undecided: dpo against production: " + "; ".join(["empty answers (0.0 %)"] * 9)
    for stage in ("gate", "publish", "promote"):
        decided = copy.deepcopy(run.record("dpo"))
        decided |= {"stage": stage, "ledger": decided["ledger"] | {"models": {}}}
        decided["manifest"]["facts"] = {"why": why, "published": None, "promoted": None}
        run.records.append(decided)
    lines = report.summary(run.view).splitlines()
    assert max(map(len, lines[3:])) <= 118
    assert (
        sum("not published: undecided: dpo" in each and each.endswith("…") for each in lines) == 1
    )
    assert lines[-1].startswith("  tokens")


def test_the_summary_tells_reused_tokens_apart() -> None:
    text = report.summary(example_run.reused().view)
    assert "reused    667,890 in" in text
    assert "tokens " not in text


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([], "No stage left a record."),
        ([record("generate")], "generate did not finish: it was killed, or is still at work."),
        ([record("x", "done")], "The run went as far as x; nothing was evaluated."),
    ],
)
def test_a_summary_can_be_made_of_hardly_anything(records: list[Record], sentence: str) -> None:
    run = RunView.of(records, stages())
    assert report.summary(run).splitlines()[1] == sentence
    assert sentence in report.page(run, lambda *_: iter(()))


def test_markdown_of_a_stage_holds_its_counts_and_no_markup_of_others() -> None:
    record = example_run.whole().record("generate")
    record["ledger"]["events"]["<img src=x>|[a](b)`c`"] = 3
    text = report.stage_markdown(record)
    assert "| smollm2 | 189 | 14 | 5 | 3 | 2 | 36,214 | 18,022 |" in text
    assert "| rejected: too few proposals | 1 |" in text
    assert r"| &lt;img src=x&gt;\|\[a\](b)\`c\` | 3 |" in text
    assert "<img" not in text


def test_markdown_of_a_failed_stage_keeps_the_message_in_a_code_block() -> None:
    text = report.stage_markdown(example_run.failed().record("label"))
    assert "## label: failed in" in text
    assert "\n    TooManyRejected: 3 of 10 rows were rejected" in text


def test_a_curve_goes_through_its_points() -> None:
    chart = charts.line([(1, 2.0), (2, 1.0), (3, 1.5)])
    (path,) = re.findall(r'class="curve" d="M([^"]+)"', chart)
    assert path == "0.00 0.00L50.00 100.00L100.00 50.00"
    assert chart.count('class="dot"') == 3
    assert "step 2: 1" in chart


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1, 1.0)],
        [(1, 0.0), (2, 0.0)],
        [(1, math.nan), (2, 1.0), (3, math.inf)],
        [(1, math.nan)],
    ],
)
def test_odd_curves_are_drawn_without_nonsense(points: list) -> None:
    assert "nan" not in charts.line(points)
    assert "inf" not in charts.line(points)


def test_a_long_curve_is_thinned_but_keeps_its_ends() -> None:
    chart = charts.line([(step, float(step)) for step in range(100_000)])
    assert len(chart) < 12_000
    assert "M0.00 100.00L" in chart
    assert "L100.00 0.00" in chart


def test_bars_are_as_long_as_their_values() -> None:
    strip = charts.segments([(30, "kept", "kept 30"), (10, "rejected", "near: 10")], 40)
    assert re.findall(r'x="([\d.]+)" y="0" width="([\d.]+)"', strip) == [
        ("0.00", "74.70"),
        ("75.00", "24.70"),
    ]


def test_an_interval_takes_its_colour_from_where_the_half_lies() -> None:
    assert "interval above" in charts.interval(0.7, 0.55, 0.8)
    assert "interval below" in charts.interval(0.3, 0.2, 0.45)
    assert "interval even" in charts.interval(0.6, 0.4, 0.7)
    assert "M70.00 50h0" in charts.interval(0.7, 0.55, 0.8)


def test_the_matrix_fills_in_the_other_direction() -> None:
    table = charts.matrix(2, {(0, 1): 0.75})
    assert '<td style="--p:75%">0.75</td>' in table
    assert '<td style="--p:25%">0.25</td>' in table


def test_charts_escape_their_titles() -> None:
    assert "<script>" not in charts.segments([(1, "kept", "<script>")])


def test_a_plan_is_compared_only_where_there_is_one() -> None:
    run = example_run.whole()
    run.record("preflight")["facts"] = {}
    assert plan(run.view) == []


def test_a_difference_that_is_not_shown_says_how_many_prompts_would_show_it() -> None:
    unclear = {"model": "dpo", "against": "base", "rate": 0.6, "n": 50, "low": 0.46, "high": 0.72}
    text = judged(unclear).replace("\xa0", " ")
    assert text.endswith("includes 50 %. To show such a rate takes about 197 prompts.")
    assert judged({**unclear, "rate": 0.5}).replace("\xa0", " ").endswith("includes 50 %.")
    assert "takes about" not in judged({**unclear, "low": 0.51})
