"""How a run went: one record for each stage, `<root>/runs/<run id>/<stage>.json` on S3, and the
rule for how a run ended."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict, cast

from moaa.progress.messages import log
from moaa.store import Store
from moaa.store.bytes import object_of

GOOD = ("done", "reused")
"""The states of a stage that has its result."""


class StageError(TypedDict):
    """Why a stage failed. `traceback` is present only for a bug."""

    type: str
    message: str
    traceback: NotRequired[str]


class Record(TypedDict):
    """What a stage records about its last attempt.
    The record of a killed stage still says `running`."""

    run_id: str
    stage: str
    status: Literal["running", "done", "reused", "failed", "terminated"]
    started: str
    """ISO 8601, UTC; `ended` too."""
    ended: str | None
    seconds: float
    manifest: dict[str, Any] | None
    error: StageError | None
    ledger: dict[str, Any]
    facts: NotRequired[dict[str, Any]]
    """The results of a stage without a manifest."""
    name: NotRequired[str]
    """The recipe's name."""
    attempt: NotRequired[int]
    """How many times the stage was started in this run."""
    round: NotRequired[int]
    """The round of self-improvement; missing in the first."""
    recipe: NotRequired[str]
    """Which recipe it ran: `digest_of` the recipe. Only in the first round: later rounds change the
    recipe."""
    beat: NotRequired[str]
    """When the stage last showed that it is running: ISO 8601, UTC."""


RunStatus = Literal["done", "reused", "partial", "unfinished", "running", "failed", "terminated"]

BEAT_S = 60.0
"""How often a running stage writes its record, in seconds."""
SILENT_S = 5 * BEAT_S
"""A stage that wrote nothing for this long was killed. Between two stages, Kubeflow needs 20 s."""


_EMPTY: dict[str, Any] = {
    "ended": None,
    "seconds": 0.0,
    "manifest": None,
    "error": None,
    "ledger": {},
}
"""Fields that a record of another version of moaa may lack."""
_KINDS = {
    **dict.fromkeys(("stage", "status", "started"), str),
    **dict.fromkeys(("manifest", "error"), dict | None),
    "ledger": dict,
}
"""What other code relies on, also in a record of another version."""


def to_json(record: Record) -> bytes:
    """Return the record as it is stored. Characters that no text can hold are replaced: a record
    that could not be written would say `running` for ever."""
    return json.dumps(record, ensure_ascii=False, default=str).encode(errors="replace")


def from_json(data: bytes, run_id: str) -> Record:
    """Return a record, which may come from another version of moaa.

    Raises ValueError if it is not one.
    """
    # It may have half a surrogate pair as an escape.
    text = json.dumps(object_of(data), ensure_ascii=False).encode(errors="replace")
    found = {"run_id": run_id} | _EMPTY | object_of(text)
    for name, kind in _KINDS.items():
        if not isinstance(found.get(name), kind):
            raise ValueError(f"its {name} is {str(found.get(name))[:40]!r}")
    record = cast(Record, found)
    if record["status"] == "failed" and record["error"] and record["error"]["type"] == "Terminated":
        record["status"] = "terminated"
    return record


def address(store: Store, run_id: str, stage: str, number: int = 1) -> str:
    """Return where the record of a stage is. Rounds after the first have folders."""
    folder = f"round-{number}/" if number > 1 else ""
    return f"{store.root}/runs/{run_id}/{folder}{stage}.json"


def by_round(found: Sequence[Record]) -> list[list[Record]]:
    """Return the records of each round of self-improvement, from the first. A run without rounds,
    or without records, has one list."""
    rounds: dict[int, list[Record]] = {}
    for record in found:
        rounds.setdefault(record.get("round", 1), []).append(record)
    return [rounds[number] for number in sorted(rounds)] or [[]]


def read(store: Store, run_id: str) -> list[Record]:
    """Return the records of a run, of all its rounds, in the order in which the stages started."""
    files = (uri for uri, _ in store.list(f"{store.root}/runs/{run_id}/") if uri.endswith(".json"))
    found = []
    for uri in files:
        try:
            found.append(from_json(store.get(uri), run_id))
        except ValueError as error:
            log.warning(f"{uri} is no record of a stage and is left out: {error}")
    return sorted(found, key=lambda record: record["started"])


def run_status(
    records: Sequence[Record], stages: Collection[str] = (), now: datetime | None = None
) -> RunStatus:
    """Return in one word how a run ended. `stages`: the stages that it should have; default: those
    that its preflight named.

    failed       a stage failed
    terminated   a stage was stopped from outside: by a user, a time-out, a node that is drained
    unfinished   a stage still runs, or was killed
    partial      nothing failed, but some of `stages` have no record (preflight needs none)
    reused       every stage found its result
    done         at least one stage made its result

    For a run that may still be going on, give the time `now`. It is `running` while a stage shows
    that it works, or the last one ended a moment ago; otherwise `unfinished` if stages are missing.
    """
    wanted = set(stages) or _named(records)
    *earlier, records = by_round(records)
    if earlier:
        if bad := broken([record for each in earlier for record in each]):
            return "unfinished" if bad["status"] == "running" else cast(RunStatus, bad["status"])
        wanted -= {"preflight"}  # only the first round has it
    states = {record["stage"]: record["status"] for record in records}
    for word in ("failed", "terminated"):
        if word in states.values():
            return word
    at_work = "running" in states.values()
    if at_work or (now and wanted - states.keys()):
        alive = now is not None and (now - _latest(records)).total_seconds() < SILENT_S
        return "running" if alive else "unfinished"
    if wanted - states.keys() - {"preflight"}:
        return "partial"
    made = [state for stage, state in states.items() if stage != "preflight"]
    return "reused" if made and set(made) == {"reused"} else "done"


def _named(records: Sequence[Record]) -> set[str]:
    """Return the stages of the run that its preflight named."""
    facts = next((r.get("facts") or {} for r in records if r["stage"] == "preflight"), {})
    return set(facts.get("stages") or ())


def _latest(records: Sequence[Record]) -> datetime:
    """Return when a stage last wrote its record."""
    times = (r.get("beat") or r["ended"] or r["started"] for r in records)
    return max(datetime.fromisoformat(time) for time in times)


def broken(records: Sequence[Record]) -> Record | None:
    """Return the record that says why the run did not succeed: of the first stage that failed, else
    of the first that was terminated, else of the last that did not finish. None if every stage has
    its result."""
    bad = [record for record in records if record["status"] not in GOOD]
    for status in ("failed", "terminated"):
        for record in bad:
            if record["status"] == status:
                return record
    return bad[-1] if bad else None


def failure(records: Sequence[Record]) -> str:
    """Return the error of the stage in `broken`, after its traceback if it was a bug. Empty if
    every stage has its result."""
    record = broken(records)
    if record is None:
        return ""
    error = record["error"] or StageError(
        type="Killed", message="it stopped without an error (killed, or its pod is gone)"
    )
    how = "was terminated" if record["status"] == "terminated" else "failed"
    where = f" of round {record['round']}" if record.get("round") else ""
    text = f"{record['stage']}{where} {how}: {error['message']}"
    return f"{error['traceback']}\n{text}" if "traceback" in error else text
