"""What a stage counts: rows, calls, tokens, seconds, and everything that did not go as planned."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class ModelUse:
    """Calls and tokens of one model in a stage. The journal answered `journal` of the calls."""

    calls: int = 0
    journal: int = 0
    retries: int = 0
    failed: int = 0
    truncated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """The sum of the latencies of all calls. Many calls run at the same time, so it is more than
    the wall-clock time."""
    prefix_queries: int = 0
    """Prompt tokens that the model's engines looked for in their prefix cache,
    by the engines' count."""
    prefix_hits: int = 0
    """Prompt tokens that were found there and not computed again."""

    @property
    def prefix_hit_rate(self) -> float | None:
        """The share of prompt tokens from the prefix cache; None if no engine reports it."""
        return self.prefix_hits / self.prefix_queries if self.prefix_queries else None


@dataclass(slots=True)
class Ledger:
    """The counts of one stage. Everything that is dropped, retried, merged or cut is counted here
    and shown in the report."""

    rows: Counter[str] = field(default_factory=Counter)
    """The number of rows by result: `in`, `kept`, and the stage's own names (`duplicate`)."""
    rejected: Counter[str] = field(default_factory=Counter)
    """The number of rejected rows by reason."""
    events: Counter[str] = field(default_factory=Counter)
    """All other counts: engine restarts, fallbacks,
    proposers that were left out (`left_out:NAME:REASON`)."""
    models: dict[str, ModelUse] = field(default_factory=dict)
    """The use by this attempt alone; `in_all` adds the earlier ones."""
    attempts: int = 1
    """The number of attempts that used a model, including this one."""
    earlier: dict[str, ModelUse] = field(default_factory=dict)
    """The use by earlier attempts that stopped before the result was complete. The result has their
    answers too."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by step of the stage (`engines`, `asking`, `writing`)."""

    def model(self, name: str) -> ModelUse:
        """Return the counts of this model, to add to."""
        return self.models.setdefault(name, ModelUse())

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the time of the block to `seconds[step]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start

    def in_all(self) -> dict[str, ModelUse]:
        """Return the use of each model for this result, over all attempts."""
        return summed([self.earlier, self.models])

    def to_json(self) -> dict[str, Any]:
        """Return the counts in the form of a manifest and a run's record."""
        return {
            "rows": dict(self.rows),
            "rejected": dict(self.rejected),
            "events": dict(self.events),
            "models": uses_to_json(self.models),
            "attempts": self.attempts,
            "earlier": uses_to_json(self.earlier),
            "seconds": {step: round(value, 3) for step, value in self.seconds.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Ledger:
        """Return the counts of `to_json`; fields that an older version did not write are empty."""
        return cls(
            rows=Counter(data.get("rows", {})),
            rejected=Counter(data.get("rejected", {})),
            events=Counter(data.get("events", {})),
            models=uses_from_json(data.get("models", {})),
            attempts=data.get("attempts", 1),
            earlier=uses_from_json(data.get("earlier", {})),
            seconds=dict(data.get("seconds", {})),
        )


def summed(uses: Iterable[Mapping[str, ModelUse]]) -> dict[str, ModelUse]:
    """Return the use of each model, added up."""
    total: dict[str, ModelUse] = {}
    for each in uses:
        for name, use in each.items():
            before = total.get(name, ModelUse())
            total[name] = ModelUse(
                *(getattr(before, f) + getattr(use, f) for f in ModelUse.__slots__)
            )
    return total


def uses_to_json(uses: Mapping[str, ModelUse]) -> dict[str, Any]:
    """Return the uses as plain data. Other threads may count at the same time."""
    return {
        name: {f: getattr(use, f) for f in ModelUse.__slots__} for name, use in sorted(uses.items())
    }


def uses_from_json(data: Mapping[str, Mapping[str, Any]]) -> dict[str, ModelUse]:
    """Return the uses of `uses_to_json`."""
    return {name: ModelUse(**use) for name, use in data.items()}
