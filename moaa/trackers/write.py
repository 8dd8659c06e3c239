"""Writes to every tracker of the recipe. A tracker that fails never fails a stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from moaa.progress.messages import log
from moaa.recipe.trackers import Tracker
from moaa.rest import Server, key_of, without_key
from moaa.store import Store
from moaa.trackers import mlflow, tensorboard, wandb
from moaa.trackers.entry import TrackerEntry

FAILED = "trackers that got nothing"


def write(
    trackers: Sequence[Tracker],
    entry: TrackerEntry,
    store: Store,
    *,
    said: bool = False,
    before: dict[str, set[int]] | None = None,
) -> Counter[str]:
    """Write the entry to each tracker. Return the count of those that failed; each is also a
    warning, unless it was already reported (`said`). `before` is that of `mlflow.write`."""
    failed: Counter[str] = Counter()
    for tracker in trackers:
        try:
            _write(tracker, entry, store, before)
        except Exception as error:  # any error: the result is valid
            tell = log.debug if said else log.warning
            shown = without_key(f"{type(error).__name__}: {error}", tracker.key_env)
            tell(f"{entry.stage}: {tracker.kind} got nothing: {shown}")
            failed[f"{FAILED}: {tracker.kind}"] += 1
    return failed


def _write(
    tracker: Tracker, entry: TrackerEntry, store: Store, before: dict[str, set[int]] | None
) -> None:
    project, key = tracker.project or entry.project, key_of(tracker.key_env)
    if tracker.kind == "tensorboard":
        tensorboard.write(entry, store)
    elif tracker.kind == "mlflow":
        server = Server(f"{(tracker.server or '').rstrip('/')}/{mlflow.PROTOCOL}", key)
        mlflow.write(entry, server, project, before)
    else:
        wandb.write(entry, tracker.server or "", key or "", project)
