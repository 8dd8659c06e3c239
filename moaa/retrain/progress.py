"""The last retraining of a model: one object on S3, written by the holder of its lock.

     <root>/models/<name>/retrain/last.json      what was started, and how it ended
     <root>/models/<name>/retrain/owner/…        who is working on it (moaa.artifacts.owner)

A command that is killed leaves it without an outcome; the next one continues the same run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Self

from moaa.registry.versions import folder as model_folder
from moaa.retrain.outcome import RetrainOutcome
from moaa.store import Missing, Store
from moaa.store.bytes import object_of


@dataclass(frozen=True, slots=True)
class Begun:
    """One retraining."""

    label: str
    """A name that the run gets before it is started, so that it can be found again."""
    way: dict[str, str]
    """Where it runs: `moaa.retrain.ways`."""
    inputs: dict[str, str]
    started: str
    """ISO 8601, UTC."""
    run: str = ""
    """The run's id; empty until it is known."""
    state: str = ""
    """How it ended; empty until it has ended and a command has looked."""
    version: dict[str, str] = field(default_factory=dict)
    """The version that it published."""

    def over(self, outcome: RetrainOutcome) -> Self:
        """Return the same with its outcome."""
        return replace(self, state=outcome.state, version=dict(outcome.version or {}))


def folder(store: Store, name: str) -> str:
    """Return the address of the folder of a model's retraining."""
    return f"{model_folder(store, name)}/retrain"


def read(store: Store, name: str) -> Begun | None:
    """Return the last retraining; None if there was none, or if it cannot be read."""
    try:
        given = object_of(store.get(f"{folder(store, name)}/last.json"))
        known = Begun.__dataclass_fields__
        return Begun(**{key: value for key, value in given.items() if key in known})
    except (Missing, ValueError, TypeError):
        return None


def write(store: Store, name: str, begun: Begun) -> None:
    """Write it. Call it only while you hold the lock."""
    text = json.dumps(asdict(begun), indent=1, ensure_ascii=False)
    store.put(f"{folder(store, name)}/last.json", text.encode())
