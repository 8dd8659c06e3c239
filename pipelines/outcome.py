"""What changed in a run since the last look at its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moaa.errors import MoaaError
from moaa.progress.screen import duration
from moaa.records import Record


class RunFailed(MoaaError):
    """The run did not succeed. The message is the failed stage's own."""

    def __init__(self, message: str, *, outside: bool = False) -> None:
        """`outside`: the cause is outside of the run, and another attempt may succeed."""
        super().__init__(message)
        self.outside = outside


def changes(
    before: Mapping[str, str], records: Sequence[Record]
) -> tuple[dict[str, str], list[str]]:
    """Return the stages' states now, and a line for each that differs from `before`."""
    now: dict[str, str] = {_named(record): record["status"] for record in records}
    lines = [
        f"{_named(r):<10} {_status(r)}" for r in records if before.get(_named(r)) != r["status"]
    ]
    return now, lines


def _named(record: Record) -> str:
    number = record.get("round", 1)
    return f"{record['stage']} {number}" if number > 1 else record["stage"]


def _status(record: Record) -> str:
    if record["status"] in ("running", "reused"):
        return str(record["status"])
    ended = f"{record['status']:<10} {duration(record['seconds'])}"
    if record["error"]:
        first, _, _ = record["error"]["message"].partition("\n")
        return f"{ended}   {first}"
    counts = "  ".join(
        f"{count:,} {what}"
        for what, count in (record.get("ledger") or {}).get("rows", {}).items()
        if count
    )
    return f"{ended}   {counts}".rstrip()
