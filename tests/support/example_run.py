"""Example runs as the stages leave them: run records and the rows of their artifacts, deterministic
and without any engine.

run = whole();  html = report.page(run.view, run.read)
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from moaa.artifacts.table import Row
from moaa.records import Record
from moaa.report import RunView
from moaa.stages.table import stages
from tests.support import example_judged as judged
from tests.support import example_stages as made
from tests.support.example_parts import utc


@dataclass
class ExampleRun:
    """Run records, and the rows of each artifact by address and table."""

    records: list[Row] = field(default_factory=list)
    tables: dict[str, dict[str, list[Row]]] = field(default_factory=dict)

    @property
    def view(self) -> RunView:
        return RunView.of(cast("list[Record]", self.records), stages())

    def read(self, manifest: Mapping[str, Any], table: str) -> Iterator[Row]:
        return iter(copy.deepcopy(self.tables[manifest["uri"]][table]))

    def record(self, stage: str) -> Any:
        return next(record for record in self.records if record["stage"] == stage)


def whole(*others: str) -> ExampleRun:
    """A run of all stages that went well, with a few rows lost on the way. `others`: whom the
    trained models are compared with; base, if nobody is named."""
    run, chance = ExampleRun(), random.Random(7)
    made.preflight(run)
    made.prompts(run)
    made.generate(run, chance)
    made.model(run, "sft", steps=16, chance=chance)
    judged.sample(run, chance)
    judged.label(run, chance)
    made.model(run, "dpo", steps=15, chance=chance)
    judged.evaluate(run, chance, others or ("base",))
    return run


def reused() -> ExampleRun:
    """The same again: every stage finds its result."""
    run = whole()
    for number, record in enumerate(run.records):
        record.update(status="reused", seconds=0.4, started=utc(number), ended=utc(number + 0.4))
    return run


def failed(stage: str = "label", error: Row | None = None) -> ExampleRun:
    """A run that ended in `stage`: no manifest, an error, and the counts up to then."""
    run = whole()
    run.records = run.records[: [r["stage"] for r in run.records].index(stage) + 1]
    run.records[-1].update(
        status="failed",
        manifest=None,
        error=error
        or {
            "type": "TooManyRejected",
            "message": "3 of 10 rows were rejected (30.0%); the limit is 20.0% "
            "(runtime.max_rejected_share).\n"
            "       3  too few proposals   e.g. strict: timeout after 300 s; fair: timeout after "
            "300 s\n"
            "  Correct the cause and run again: rows that were answered are not asked again.",
        },
    )
    run.records[-1]["ledger"]["rejected"] = {"too few proposals": 3}
    return run


def killed() -> ExampleRun:
    """A run whose generate was killed: its record still says running."""
    run = whole()
    run.records = run.records[:3]
    run.records[-1].update(status="running", ended=None, seconds=0.0, manifest=None, ledger={})
    return run


def hostile(text: str) -> ExampleRun:
    """A whole run in which every text that comes from outside (prompts, answers, names, reasons)
    contains `text`."""
    run = whole()
    for tables in run.tables.values():
        for rows in tables.values():
            rows[:] = [_poisoned(row, text) for row in rows]
    for record in run.records:
        if not record["manifest"]:
            continue
        ledger = record["ledger"]
        for counts in ("rejected", "events", "rows", "models", "seconds"):
            extra = (
                {f"{text} {counts}": copy.deepcopy(next(iter(ledger[counts].values())))}
                if ledger[counts]
                else {}
            )
            ledger[counts] |= extra
        record["manifest"] |= {
            "name": text,
            "ledger": ledger,
            "uri": record["manifest"]["uri"] + text,
        }
    run.tables = {f"{uri}{text}": tables for uri, tables in run.tables.items()}
    return run


_KEYS = {"role", "verdict", "finish_reason", "model", "model_a", "model_b", "id", "set"}


def _poisoned(value: Any, text: str, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _poisoned(v, text, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_poisoned(v, text, key) for v in value]
    return f"{value} {text}" if isinstance(value, str) and key not in _KEYS else value
