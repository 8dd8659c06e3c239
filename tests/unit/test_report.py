"""What a report shows of a run, whole or broken."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace

import pytest

from moaa import report
from moaa.artifacts import Draft, Output
from tests.support import example_run
from tests.support.memory_store import MemoryStore
from tests.support.page import SCRIPT, Page, shown

MADE = datetime(2026, 1, 1, tzinfo=UTC)


def test_all_that_was_counted_is_shown() -> None:
    run = example_run.whole()
    page = shown(run)
    for record in run.records:
        ledger = record["ledger"]
        for reason, n in ledger.get("rejected", {}).items():
            assert f"rejected: {reason} {n}" in page.text
        for event, n in ledger.get("events", {}).items():
            assert event + (f" ×{n}" if n > 1 else "") in page.text
        for name, n in ledger.get("rows", {}).items():
            assert (
                f"{n:,} in,"
                if name == "in"
                else f"{n:,} kept"
                if name == "kept"
                else f"{name} {n:,}"
            ) in page.text
        for model, use in ledger.get("models", {}).items():
            cells = [
                record["stage"],
                model,
                *(use[k] for k in ("calls", "journal", "retries", "failed", "truncated")),
            ]
            cells += [use["prompt_tokens"], use["completion_tokens"]]
            assert " ".join(c if isinstance(c, str) else f"{c:,}" for c in cells) in page.text
    facts = run.record("evaluate")["manifest"]["facts"]
    for rate in facts["win_rates"]:
        percents = [f"{100 * rate[key]:.1f}" for key in ("rate", "low", "high")]
        assert "{} % {} % to {} %".format(*percents) in page.text
    for name, length in facts["lengths"].items():
        mean, low, high = (length[f"mean_tokens{end}"] for end in ("", "_low", "_high"))
        said = f"{name} mean {mean:.4g} ({low:.4g} to {high:.4g}) tokens"
        assert f"{said} of {length['answers']} answers, " in page.text
    for name, n in run.record("label")["manifest"]["facts"]["criteria"].items():
        assert f"{name}: {n} {n:,}" in page.text  # the bar's title, then the number beside it


def test_the_plan_stands_beside_the_truth() -> None:
    page = shown(example_run.whole())
    assert (
        "label smollm2 898 of 900, ×1.00 531,020 of 520,000, ×1.02 33,480 of 31,000, ×1.08"
        in page.text
    )
    assert "sft smollm2 16 of 16, ×1.00 14,336 of 14,800, ×0.97" in page.text
    assert "$0.09" in page.text


def test_examples_show_proposals_synthesis_pair_and_both_verdicts() -> None:
    run = example_run.whole()
    page = shown(run)
    tables = {
        record["stage"]: run.tables[record["manifest"]["uri"]]
        for record in run.records
        if record["manifest"]
    }
    first = tables["generate"]["data"][0]["turns"][0]
    for text in [first["answer"], *(proposal["text"] for proposal in first["proposals"])]:
        assert " ".join(text.split()) in page.text
    assert "creative was left out: timeout" in page.text
    pair = tables["label"]["data"][0]
    ends = {pair["chosen_index"], pair["rejected_index"]}
    judged = next(
        j
        for j in tables["label"]["judgements"]
        if j["id"] == pair["id"] and {j["a"], j["b"]} == ends
    )
    p = judged["p"] if judged["a"] == pair["chosen_index"] else 1 - judged["p"]
    assert f"both orders: {100 * p:.1f} % for the chosen" in page.text
    for order in judged["orders"]:
        names = {pair["chosen_index"]: "chosen", pair["rejected_index"]: "rejected"}
        better = names[order["first"] if order["verdict"] == "A" else order["second"]]
        first = f"{names[order['first']]} shown first: verdict {order['verdict']}"
        assert f"{first}, {better} with p(A) = {order['p']:.3f}" in page.text
        assert all(said["text"] in page.text for said in order["assessments"])


def test_a_failed_run_shows_the_error_and_what_did_not_run() -> None:
    error = {
        "type": "KeyError",
        "message": f"no such row {SCRIPT}",
        "traceback": f"Traceback …\n{SCRIPT}",
    }
    run = example_run.failed("generate", error)
    html = report.page(run.view, run.read)
    page = Page(html)
    assert page.text.index("generate failed KeyError") < page.text.index("Where the time went")
    assert f"no such row {SCRIPT}" in page.text
    assert page.text.count("not run") == 6  # five stages, and the verdict
    assert SCRIPT not in html


def test_a_killed_stage_is_said_to_be_unfinished() -> None:
    assert "generate did not finish" in shown(example_run.killed()).text


def test_reused_stages_are_said_to_be() -> None:
    page = shown(example_run.reused())
    assert page.text.count("reused 0.4 s") == 8


def test_an_artifact_that_cannot_be_read_is_said_and_the_rest_is_shown() -> None:
    run = example_run.whole()
    run.tables[run.record("label")["manifest"]["uri"]]["data"] = [{"id": "torn"}]
    del run.tables[run.record("generate")["manifest"]["uri"]]
    page = shown(run)
    assert "pairs of label could not be read: KeyError" in page.text
    assert "conversations of generate could not be read: KeyError" in page.text
    assert "Held-out prompts" in page.text
    assert page.faults == []


def test_a_record_with_odd_facts_costs_one_section_not_the_report() -> None:
    run = example_run.whole()
    run.record("dpo")["manifest"]["facts"]["curve"] = [{"loss": "low"}]
    page = shown(run)
    assert "The section 'training' could not be made" in page.text
    assert "Answer lengths" in page.text


def test_held_out_rows_and_an_adaptive_judge_are_shown() -> None:
    run = example_run.whole()
    assert "held out" not in shown(run).text
    run.record("dpo")["manifest"]["facts"]["validation"] = {
        "curve": [
            {"step": 0, "loss": 0.6931, "rewards/accuracies": 0.0, "rewards/margins": 0.0},
            {"step": 15, "loss": 0.5125, "rewards/accuracies": 0.75, "rewards/margins": 0.25},
        ]
    }
    run.record("label")["manifest"]["facts"]["adaptive"] = {
        "calls_share": 0.412,
        "settled": 0.95,
        "confidence": 0.92,
        "pairs": {"both": 3, "one": 14, "none": 13},
    }
    page = shown(run)
    assert page.faults == []
    for title in ("DPO loss, held out", "DPO reward accuracy, held out", "DPO reward margin, held"):
        assert title in page.text
    assert "DPO loss, held out 0.6931 → 0.5125" in page.text
    assert "The judge was adaptive: 41.2" in page.text
    assert "14 in one and 13 not at all" in page.text


def test_build_reads_real_artifacts_and_survives_a_torn_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=lambda zone: MADE)  # the page says when it was made
    monkeypatch.setattr(import_module("moaa.report.page"), "datetime", clock)
    run, store = example_run.whole(), MemoryStore("s3://moaa/demo")
    for record in run.records:
        if record["manifest"]:
            record["manifest"] = _commit(
                store, record["manifest"], run.tables[record["manifest"]["uri"]]
            )
    page = Page(report.build(run.view, store))
    assert page.text == shown(example_run.whole()).text
    shard = next(
        uri for uri, _ in store.list(run.record("generate")["manifest"]["uri"]) if "/data/" in uri
    )
    store.put(shard, store.get(shard)[:-7])
    page = Page(report.build(run.view, store))
    assert "conversations of generate could not be read: ArtifactError" in page.text
    assert "Preferences: chosen beside rejected" in page.text


def _commit(store: MemoryStore, manifest: dict, tables: dict) -> dict:
    with Output(store, manifest["uri"], manifest["kind"]) as out:
        for table, rows in tables.items():
            for row in rows:
                out.write({"id": "x", **row}, table=table)
        fields = {
            name: manifest[name]
            for name in ("stage", "name", "fingerprint", "part", "ledger", "facts")
        }
        made = json.loads(out.commit(Draft(**fields)).to_text())
    made |= {"created": manifest["created"], "parents": manifest["parents"]}
    store.objects[f"{made['uri']}/manifest.json"] = json.dumps(made).encode()
    return made
