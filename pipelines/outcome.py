"""What a run's records say: what changed since the last look, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moaa.errors import MoaaError
from moaa.records import Record


class RunFailed(MoaaError):
    """The run did not succeed; the message is the failed stage's own."""


def changes(
    before: Mapping[str, str], records: Sequence[Record]
) -> tuple[dict[str, str], list[str]]:
    """The stages' states now, and a line for each that is not as it was `before`."""
    now: dict[str, str] = {record["stage"]: record["status"] for record in records}
    lines = [
        f"{r['stage']:<10} {_said(r)}" for r in records if before.get(r["stage"]) != r["status"]
    ]
    return now, lines


def _said(record: Record) -> str:
    if record["status"] in ("running", "reused"):
        return record["status"]
    ended = f"{record['status']:<8} {_duration(record['seconds'])}"
    if record["error"]:
        first, _, _ = record["error"]["message"].partition("\n")
        return f"{ended}   {first}"
    counts = "  ".join(
        f"{count:,} {what}"
        for what, count in (record.get("ledger") or {}).get("rows", {}).items()
        if count
    )
    return f"{ended}   {counts}".rstrip()


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
