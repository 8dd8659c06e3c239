"""Writes to every tracker of the recipe. A tracker that fails never fails a stage."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from moaa.progress.messages import log
from moaa.recipe.trackers import Tracker
from moaa.store import Store
from moaa.trackers import mlflow, tensorboard, wandb
from moaa.trackers.entry import Entry

FAILED = "trackers that got nothing"


def write(
    trackers: Sequence[Tracker], entry: Entry, store: Store, *, said: bool = False
) -> Counter[str]:
    """Write the entry to each tracker. Returns the count of those that failed, which are warnings
    too, unless that was `said` before."""
    failed: Counter[str] = Counter()
    for tracker in trackers:
        try:
            _write(tracker, entry, store)
        except Exception as error:  # whatever it is: the result stands
            tell = log.debug if said else log.warning
            tell(f"{entry.stage}: {tracker.kind} got nothing: {_shown(error, tracker)}")
            failed[f"{FAILED}: {tracker.kind}"] += 1
    return failed


def _write(tracker: Tracker, entry: Entry, store: Store) -> None:
    project, key = tracker.project or entry.project, _key(tracker)
    if tracker.kind == "tensorboard":
        tensorboard.write(entry, store)
    elif tracker.kind == "mlflow":
        mlflow.write(entry, mlflow.Server(tracker.server or "", key), project)
    else:
        wandb.write(entry, tracker.server or "", key or "", project)


def _key(tracker: Tracker) -> str | None:
    if not tracker.key_env:
        return None
    if not (key := os.environ.get(tracker.key_env, "").strip()):
        raise LookupError(f"the environment variable {tracker.key_env} is not set")
    return key


def _shown(error: Exception, tracker: Tracker) -> str:
    """The error without the key, which some servers repeat."""
    text = f"{type(error).__name__}: {error}"
    key = os.environ.get(tracker.key_env or "", "").strip()
    return text.replace(key, "***") if key else text
