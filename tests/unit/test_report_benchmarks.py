"""The report's benchmarks: every number with its interval, length beside win rates, the cost."""

from __future__ import annotations

import re

from moaa import report
from moaa.report.benchmarks import benchmarks
from moaa.report.view import RunView
from moaa.stages.table import stages
from tests.support import example_run, example_scores
from tests.support.records import record


def test_the_table_of_benchmarks_says_what_is_comparable_and_what_failed() -> None:
    shown = benchmarks(example_run.whole().view)
    heads = [head["title"] for head in shown["matrix"]["heads"]]
    rows = {row["entrant"]: row["cells"] for row in shown["matrix"]["rows"]}
    assert heads == ["Head to head", "MT-Bench", "Arena-Hard", "Reasoning kept", "AlpacaEval 2"]
    assert list(rows) == ["base", "sft", "dpo", "gpt-4-0314"]
    dpo = dict(zip(heads, rows["dpo"], strict=True))
    rating = {key: dpo["MT-Bench"][key] for key in ("value", "interval", "n", "grey")}
    assert rating == {"value": "4.90", "interval": "4.20 to 5.60", "n": 24, "grey": True}
    assert dpo["AlpacaEval 2"]["why"].startswith("its questions cannot be read")
    assert shown["matrix"]["heads"][1]["about"] == f"rating (judge: {example_scores.JUDGE})"
    judge_bench = next(each for each in shown["sections"] if each["name"] == "judge_bench")
    assert judge_bench["incomparable"] == ""


def test_length_stands_beside_every_win_rate_also_against_a_baseline() -> None:
    """The baseline's answers come with the questions; only their characters are known."""
    shown = benchmarks(example_run.whole().view)
    sections = {each["name"]: each for each in shown["sections"]}
    rates = [
        row
        for name in ("head_to_head", "arena_hard")
        for row in sections[name]["rows"]
        if row["metric"].startswith("win rate") and "difference" not in row["metric"]
    ]
    assert len(rates) == 4
    assert all(re.fullmatch(r"\d+ / \d+", row["length"]) for row in rates)
    assert {row["length"].split(" / ")[1] for row in rates if row["against"] == "gpt-4-0314"} == {
        "158"
    }
    assert shown["length"].count('class="dot"') == 3
    assert "Arena-Hard: dpo against gpt-4-0314" in shown["length"]
    cells = next(r for r in shown["matrix"]["rows"] if r["entrant"] == "dpo")["cells"]
    lengths = [cell.get("length", "").replace("\xa0", " ") for cell in cells]
    assert all(
        re.fullmatch(r"\d+ characters, \d\.\d\d x", text) for text in (lengths[0], lengths[2])
    )
    assert re.fullmatch(r"\d+ characters", lengths[1]), "MT-Bench has no other side"


def test_paired_differences_are_drawn_by_what_they_are_differences_of() -> None:
    forests = {each["title"]: each for each in benchmarks(example_run.whole().view)["forests"]}
    said = {
        title: [
            (row["title"], row["who"], row["value"].replace("\xa0", " ")) for row in each["rows"]
        ]
        for title, each in forests.items()
    }
    assert said == {
        "Reasoning kept": [("Reasoning kept", "dpo against base", "-2.1 pp")],
        "Win rates compared": [("Arena-Hard", "dpo against base", "+6.0 pp")],
        "Ratings compared": [("MT-Bench", "dpo against base", "+1.80")],
    }
    assert "interval below" in forests["Reasoning kept"]["rows"][0]["chart"]
    assert "interval above" in forests["Ratings compared"]["rows"][0]["chart"]


def test_every_number_of_a_section_has_its_interval_and_its_unit() -> None:
    sections = {each["name"]: each for each in benchmarks(example_run.whole().view)["sections"]}
    judge = {
        key: text.replace("\xa0", " ") for key, text in sections["arena_hard"]["judging"].items()
    }
    assert judge["first"] == "62.5 % (51.0 % to 73.0 %)"
    assert judge["disagree"] == "25.0 % (14.0 % to 40.0 %)"
    assert (judge["verdicts"], judge["pairs"]) == ("80", "40")
    assert "0.41\xa0bits" in [row["value"] for row in sections["judge_bench"]["rows"]]
    spread = re.compile(r"[\d.,]+( %)? \([\d.,]+( %)? to [\d.,]+( %)?\)")
    *ours, baseline = sections["arena_hard"]["lengths"]
    for row in ours:
        for name in ("characters", "tokens", "truncated", "empty"):
            assert spread.fullmatch(row[name].replace("\xa0", " ")), (name, row[name])
    assert (baseline["who"], baseline["tokens"], baseline["answers"]) == ("gpt-4-0314", "–", 2)


def test_facts_of_earlier_runs_without_intervals_are_shown() -> None:
    run = example_run.whole()
    facts = run.view.stage("evaluate").facts
    for each in facts["benchmarks"].values():
        judging = each["judging"]
        for name in [name for name in judging if name.endswith(("_low", "_high", "_orders"))]:
            del judging[name]
        for length in each["lengths"].values():
            for name in [n for n in length if n.endswith(("_low", "_high")) or n == "empty"]:
                del length[name]
    page = report.page(run.view, run.read)
    assert "could not be made" not in page
    assert "in 25.0\xa0% of pairs the two orders disagree" in page


def test_the_evaluations_cost_is_said_without_a_table_of_models_too() -> None:
    """A run that only measures judges has none; its GPUs cost what their hours do."""
    run = example_run.whole()
    facts = run.view.stage("evaluate").facts["benchmarks"]
    for name in [name for name, each in facts.items() if each["measures"] == "models"]:
        del facts[name]
    assert benchmarks(run.view)["matrix"] == {}
    run.record("preflight")["facts"]["gpus"] = {"evaluate": {"gpus": 13, "hour_usd": 26.0}}
    hours = run.view.stage("evaluate").seconds / 3600
    said = f"{13 * hours:.4g} GPU-hours, ${26 * hours:,.2f}."
    assert benchmarks(run.view)["cost"].endswith(said)
    assert said in report.page(run.view, run.read)
    run.record("evaluate")["status"] = "reused"
    assert "GPU-hours" not in benchmarks(run.view)["cost"]


def test_an_interval_without_ends_takes_no_section_away() -> None:
    """The rating of one conversation has none: its error is not known."""
    run = example_run.whole()
    facts = run.view.stage("evaluate").facts["benchmarks"]
    for each in (score for benchmark in facts.values() for score in benchmark["scores"]):
        each |= {"low": None, "high": None}
    shown = benchmarks(run.view)
    rows = [row for section in shown["sections"] for row in section["rows"]]
    assert {row["interval"] for row in rows} == {"–"}
    assert not any(row["chart"] for row in rows)
    assert shown["forests"] == []
    assert "could not be made" not in report.page(run.view, run.read)


def test_a_run_without_benchmarks_has_no_section_of_them() -> None:
    assert benchmarks(RunView.of([record("evaluate", "done")], stages())) == {}


def test_a_rating_has_no_line_between_good_and_bad_and_lengths_are_not_negative() -> None:
    """The line stood at -1, far left of the chart and over the text beside it."""
    run = example_run.whole()
    sections = {each["name"]: each for each in benchmarks(run.view)["sections"]}
    first = sections["mt_bench"]["rows"][0]
    assert 'class="mark"' not in first["chart"]
    assert 'aria-label="3.10, 2.40 to 3.80"' in first["chart"]
    assert 'class="mark"' in sections["head_to_head"]["rows"][0]["chart"]
    assert 'd="M-' not in report.page(run.view, run.read)
    (baseline,) = [row for row in sections["arena_hard"]["lengths"] if row["who"] == "gpt-4-0314"]
    assert baseline["characters"].startswith("158 (0 to ")
