"""Records of stages, as a run leaves them."""

from __future__ import annotations

from typing import Any, cast

from moaa.records import Record


def record(stage: str, status: str = "running", **more: Any) -> Record:
    """A record with this status and nothing else in it, but for `more`."""
    empty: dict[str, Any] = {
        "run_id": "r",
        "stage": stage,
        "status": status,
        "started": "2026-01-01T00:00:00.000+00:00",
        "ended": None,
        "seconds": 1.0,
        "manifest": None,
        "error": None,
        "ledger": {},
    }
    return cast(Record, empty | more)
