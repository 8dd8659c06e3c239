"""What a stage counted: rows, calls, tokens, seconds, and everything that did not go as planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class ModelUse:
    """Calls and tokens of one model within a stage. `journal` calls were answered by the journal,
    not the engine."""

    calls: int = 0
    journal: int = 0
    retries: int = 0
    failed: int = 0
    truncated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Sum of the calls' latencies: with many in flight, more than the clock shows."""


@dataclass(slots=True)
class Ledger:
    """Counts of one stage. Nothing is dropped, retried, merged or cut without a line here (shown in
    the report)."""

    rows: Counter[str] = field(default_factory=Counter)
    """Rows by fate: `in`, `kept`, and what the stage itself names (`merged`, `duplicate`)."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rejected rows by reason."""
    events: Counter[str] = field(default_factory=Counter)
    """Everything else worth counting: engine restarts, fallbacks, left-out proposers
    (`left_out:NAME:REASON`)."""
    models: dict[str, ModelUse] = field(default_factory=dict)
    """By this attempt alone; `in_all` adds the earlier ones."""
    attempts: int = 1
    """Attempts that used a model, this one included."""
    earlier: dict[str, ModelUse] = field(default_factory=dict)
    """By the attempts before this one, which ended before the result was whole: it holds their
    answers too."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by step of the stage (`engines`, `asking`, `writing`)."""

    def model(self, name: str) -> ModelUse:
        return self.models.setdefault(name, ModelUse())

    def in_all(self) -> dict[str, ModelUse]:
        """What the result took of each model, over all attempts at it."""
        return summed([self.earlier, self.models])

    def to_json(self) -> dict[str, Any]:
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
    """The use of each model, added up."""
    total: dict[str, ModelUse] = {}
    for each in uses:
        for name, use in each.items():
            before = total.get(name, ModelUse())
            total[name] = ModelUse(
                *(getattr(before, f) + getattr(use, f) for f in ModelUse.__slots__)
            )
    return total


def uses_to_json(uses: Mapping[str, ModelUse]) -> dict[str, Any]:
    """As plain data. May be called while another thread counts."""
    return {
        name: {f: getattr(use, f) for f in ModelUse.__slots__} for name, use in sorted(uses.items())
    }


def uses_from_json(data: Mapping[str, Mapping[str, Any]]) -> dict[str, ModelUse]:
    return {name: ModelUse(**use) for name, use in data.items()}
