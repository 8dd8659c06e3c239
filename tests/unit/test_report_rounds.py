"""The report of a run of rounds: one page with a table and a curve of all of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from moaa import records
from moaa.report import page, summary
from moaa.report.rounds import rounds
from tests.support.example_run import ExampleRun, whole

VERDICTS = ("promote", "promote", "refuse")


def finding(outcome: str) -> dict[str, Any]:
    return {"rule": "wins", "outcome": outcome, "about": "62.0 %, at least 55.0", "needed": None}


def of_rounds(*verdicts: str) -> ExampleRun:
    """A run whose gate decided so, round by round. From the second round on the model with which
    the first one began is measured too, as `first`."""
    run, one = ExampleRun(), whole()
    run.tables = one.tables
    for number, verdict in enumerate(verdicts, 1):
        made = copy.deepcopy(one.records)
        outcome = "pass" if verdict == "promote" else "fail"
        decision = {
            "verdict": verdict,
            "candidate": "dpo",
            "against": "base",
            "why": "wins",
            "power": "With 40 prompts this gate can see 17.6 points.",
            "findings": [finding(outcome)],
        }
        gate = copy.deepcopy(next(each for each in made if each["stage"] == "evaluate"))
        gate["stage"], gate["manifest"]["facts"] = "gate", {"decision": decision}
        gate["ledger"] = {}
        for record in (*made, gate):
            if number > 1 and record["stage"] == "preflight":
                continue
            if number > 1:
                record["round"] = number
            record["started"] = record["started"].replace("2026", f"{2025 + number}")
            record["ended"] = record["ended"].replace("2026", f"{2025 + number}")
            if record["stage"] == "evaluate" and number > 1:
                _also_first(record["manifest"]["facts"]["benchmarks"], number)
            run.records.append(record)
    return run


def _also_first(benchmarks: dict[str, Any], number: int) -> None:
    scores = benchmarks["head_to_head"]["scores"]
    for score in [each for each in scores if each["against"] == "base" and each["main"]]:
        ends = {key: min(score[key] + 0.1 * (number - 1), 1) for key in ("value", "low", "high")}
        scores.append({**score, "against": "first", **ends})
        score["main"] = False


@pytest.fixture(scope="module")
def run() -> ExampleRun:
    return of_rounds(*VERDICTS)


def test_each_round_has_its_decision_and_its_numbers(run: ExampleRun) -> None:
    found = rounds(run.view)
    assert [row["verdict"] for row in found["rows"]] == list(VERDICTS)
    first = [row["first"]["ends"][0] for row in found["rows"]]
    assert first == sorted(first)
    assert first[0] < first[2]
    before = {row["before"]["ends"] for row in found["rows"]}
    assert len(before) == 1, "the same numbers against the round before"
    assert found["said"].startswith("2 of 3 rounds won; the model of round 3 was refused")


def test_one_page_shows_all_rounds(run: ExampleRun) -> None:
    html = page(run.view, run.read)
    assert "could not be made" not in html
    assert html.index('id="rounds"') < html.index('id="gate"')
    assert "The gate of round 1: promote" in html
    assert "round 3: " in html
    assert html.count('class="spread"') >= 3


def test_a_run_without_rounds_has_no_such_section() -> None:
    one = of_rounds("promote")
    assert rounds(one.view) == {}
    assert 'id="rounds"' not in page(one.view, one.read)


def test_the_summary_and_the_state_are_of_all_rounds(run: ExampleRun) -> None:
    assert "2 of 3 rounds won" in summary(run.view)
    assert records.run_status(run.view.records) == "done"


def test_a_round_that_failed_or_was_killed_decides_the_state(run: ExampleRun) -> None:
    found = copy.deepcopy(run.view.records)
    names = {each["stage"] for each in found}
    assert records.run_status(found[:-3], names) == "partial"
    late = next(each for each in found if each["stage"] == "sft" and each.get("round") == 2)
    late["status"], late["error"] = "failed", {"type": "X", "message": "no room"}
    assert records.run_status(found) == "failed"
    assert records.failure(found) == "sft of round 2 failed: no room"
