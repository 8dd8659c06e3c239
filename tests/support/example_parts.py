"""What all stages of an example run have: names, times, and how a record is added."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from moaa.artifacts.table import Row

if TYPE_CHECKING:
    from tests.support.example_run import ExampleRun


ROOT = "s3://moaa/demo"
RUN_ID = "demo-20261124-213000-4f1c"
STARTED = {
    "prompts": 3,
    "generate": 5,
    "sft": 95,
    "sample": 251,
    "label": 311,
    "dpo": 452,
    "evaluate": 541,
}

SECONDS = {
    "prompts": 1.3,
    "generate": 88.4,
    "sft": 154.9,
    "sample": 58.2,
    "label": 139.8,
    "dpo": 88.0,
    "evaluate": 121.6,
}

KINDS = {
    "prompts": "prompts",
    "generate": "sft-data",
    "sft": "model",
    "sample": "samples",
    "label": "preferences",
    "dpo": "model",
}

PARENTS = {
    "generate": ["prompts"],
    "sft": ["generate"],
    "sample": ["prompts", "sft"],
    "label": ["sample"],
    "dpo": ["label", "sft"],
    "evaluate": ["prompts", "sft", "dpo"],
}


def utc(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"2026-11-24T21:{30 + int(minutes):02d}:{rest:06.3f}+00:00"


def _use(calls: int, prompt: int, completion: int, seconds: float, **more: int) -> Row:
    zero = {"journal": 0, "retries": 0, "failed": 0, "truncated": 0}
    return {
        "calls": calls,
        **zero,
        **more,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "seconds": seconds,
    }


def _fingerprint(stage: str) -> str:
    return f"{random.Random(stage).getrandbits(96):024x}"


def add(
    run: ExampleRun,
    stage: str,
    ledger: Row,
    *,
    facts: Row | None = None,
    kind: str = "",
    **tables: list[Row],
) -> None:
    started, seconds = STARTED[stage], SECONDS[stage]
    ledger = {"rows": {}, "rejected": {}, "events": {}, "models": {}, "seconds": {}, **ledger}
    fingerprint = _fingerprint(stage)
    uri = f"{ROOT}/{stage}/{fingerprint}"
    files = [
        {
            "name": f"{table}-00000.parquet",
            "table": table,
            "rows": len(rows),
            "size": 4096,
            "sha256": "0" * 64,
        }
        for table, rows in tables.items()
    ]
    manifest = {
        "schema_version": 1,
        "kind": kind or KINDS[stage],
        "stage": stage,
        "name": "demo",
        "uri": uri,
        "fingerprint": fingerprint,
        "created": utc(started + seconds),
        "files": files,
        "rows": {table: len(rows) for table, rows in tables.items()},
        "parents": [
            {"name": p, "kind": KINDS[p], "uri": f"{ROOT}/{p}/{made}", "fingerprint": made}
            for p in PARENTS.get(stage, [])
            for made in [_fingerprint(p)]
        ],
        "part": {stage: {"temperature": 0.7, "target": "smollm2"}},
        "ledger": ledger,
        "facts": facts or {},
    }
    run.tables[uri] = tables
    run.records.append(
        {
            "run_id": RUN_ID,
            "stage": stage,
            "status": "done",
            "started": utc(started),
            "ended": utc(started + seconds),
            "seconds": seconds,
            "manifest": manifest,
            "error": None,
            "ledger": ledger,
        }
    )
