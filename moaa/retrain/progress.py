"""The retraining of a model that was begun last: one object on S3, written by who holds its lock.

    <root>/models/<name>/retrain/last.json      what was begun, and how it ended
    <root>/models/<name>/retrain/owner/…        who is at work (moaa.artifacts.owner)

A command that is killed leaves it without an outcome: the next one goes on with the same run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from moaa.registry.versions import folder as model_folder
from moaa.retrain.outcome import RetrainOutcome
from moaa.store import Missing, Store


@dataclass(frozen=True, slots=True)
class Begun:
    """One retraining."""

    label: str
    """A name that the run is given before it is started, so that it can be found again."""
    way: dict[str, str]
    """Where it runs: `moaa.retrain.ways`."""
    inputs: dict[str, str]
    started: str
    """ISO 8601, UTC."""
    run: str = ""
    """The run's id; empty as long as nobody has said it."""
    state: str = ""
    """How it ended; empty as long as it has not, or nobody looked."""
    version: dict[str, str] = field(default_factory=dict)
    """The version that it published."""

    def over(self, outcome: RetrainOutcome) -> Self:
        """Return the same with its outcome."""
        return replace(self, state=outcome.state, version=dict(outcome.version or {}))


def folder(store: Store, name: str) -> str:
    """Return the address below which all about the retraining of a model is."""
    return f"{model_folder(store, name)}/retrain"


def read(store: Store, name: str) -> Begun | None:
    """Return what was begun last; None if nothing was, or if it cannot be read any more."""
    try:
        given: dict[str, Any] = json.loads(store.get(f"{folder(store, name)}/last.json"))
        known = Begun.__dataclass_fields__
        return Begun(**{key: value for key, value in given.items() if key in known})
    except (Missing, ValueError, TypeError):
        return None


def write(store: Store, name: str, begun: Begun) -> None:
    """Keep it. Only who holds the lock may."""
    text = json.dumps(asdict(begun), indent=1, ensure_ascii=False)
    store.put(f"{folder(store, name)}/last.json", text.encode())
