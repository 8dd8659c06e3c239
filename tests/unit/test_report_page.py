"""Any report is a well-formed page that loads nothing and runs our script alone."""

from __future__ import annotations

import re

import pytest

from moaa import report
from tests.support import example_run
from tests.support.example_run import ExampleRun
from tests.support.page import SCRIPT, Page, shown

RUNS = {
    "whole": example_run.whole,
    "reused": example_run.reused,
    "failed": example_run.failed,
    "killed": example_run.killed,
    "hostile": lambda: example_run.hostile(SCRIPT),
    "nothing": ExampleRun,
}


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS.keys())
def test_any_run_gives_a_well_formed_page_that_loads_nothing(make) -> None:
    run = make()
    html = report.page(run.view, run.read)
    page = Page(html)
    assert page.faults == []
    assert len(set(page.ids)) == len(page.ids)
    assert page.tags.count("script") == 1
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"s3://", "", html))
    assert [
        (tag, name)
        for tag, name, _ in page.attributes
        if name in ("src", "srcset", "action", "onclick", "data")
    ] == []
    assert all(
        (value or "").startswith("#") for _, name, value in page.attributes if name == "href"
    )
    assert "could not be" not in page.text
    assert len(html.encode()) < 1_000_000


def test_what_models_and_people_wrote_is_shown_as_text_and_never_runs() -> None:
    run = example_run.hostile(SCRIPT)
    html = report.page(run.view, run.read)
    assert SCRIPT not in html
    page = Page(html)
    for place in ("Why does bread rise", "too few proposals", "rejected", "events", "models"):
        assert re.search(
            f"{re.escape(place)}[^.]{{0,60}}{re.escape(SCRIPT)}|{re.escape(SCRIPT)} {place}",
            page.text,
        ), place
    assert not [a for a in page.attributes if a[1].startswith("on")]


def test_a_text_turns_no_direction_but_its_own() -> None:
    """A right-to-left override in an answer could show the numbers beside it in another order."""
    run = example_run.hostile("\u202eabc")
    page = shown(run)
    assert "\u202eabc" in page.text
    assert page.turned == []
    failed = example_run.failed()
    failed.records[-1]["error"] = {"type": "\u202e", "message": "\u202e", "traceback": "\u202e"}
    assert shown(failed).turned == []
    assert Page(report.failure("run", "\u202e")).turned == []


def test_the_policy_allows_our_script_and_no_other() -> None:
    import base64
    import hashlib

    html = report.page(*_parts(example_run.whole()))
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [
        v
        for tag, name, v in Page(html).attributes
        if tag == "meta" and name == "content" and "default-src" in (v or "")
    ]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_long_texts_are_cut_and_many_rows_bounded() -> None:
    run = example_run.whole()
    rows = run.tables[run.record("generate")["manifest"]["uri"]]["data"]
    for row in rows:
        row["turns"][0]["answer"] = "x" * 50_000
    run.tables[run.record("generate")["manifest"]["uri"]]["data"] = rows * 50
    html = report.page(run.view, run.read)
    assert "[…and 47,000 more characters]" in html
    assert len(html) < 1_000_000


def _parts(run: ExampleRun) -> tuple:
    return run.view, run.read
