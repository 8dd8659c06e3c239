"""What one answer of a mixture has cost: the sum of its calls, and each member's share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from moaa.gateway.relay import Usage
from moaa.mixture import LeftOut
from moaa.recipe.serving import Price

Role = Literal["proposer", "aggregator"]


@dataclass(frozen=True, slots=True)
class Spent:
    """One call of a member that answered. `usage` is None if the server counts no tokens. `shared`:
    the answer was there already, so it cost nothing."""

    name: str
    model: str
    role: Role
    layer: int
    seconds: float
    finish_reason: str
    usage: Usage | None
    shared: bool = False
    price: Price | None = None

    @property
    def usd(self) -> float | None:
        """The cost in dollars; None unless the price and the tokens are known."""
        if self.shared:
            return 0.0
        if self.price is None or self.usage is None:
            return None
        prompt, completion = self.usage.prompt, self.usage.completion
        return (prompt * self.price.prompt + completion * self.price.completion) / 1e6

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `members`."""
        counted = None if self.usage is None else self.usage
        found: dict[str, Any] = {
            "name": self.name,
            "model": self.model,
            "role": self.role,
            "layer": self.layer,
            "prompt_tokens": counted and counted.prompt,
            "completion_tokens": counted and counted.completion,
            "seconds": round(self.seconds, 3),
            "finish_reason": self.finish_reason,
        }
        if self.shared:
            found["shared"] = True
        if self.usd is not None:
            found["usd"] = round(self.usd, 9)
        return found


@dataclass(slots=True)
class Tally:
    """The calls of one request up to now."""

    revision: str
    members: list[Spent] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """The sum of all calls that were answered. `reasoning` counts the tokens that are not
        shown: those of the proposers, and the aggregator's own reasoning.

        Tokens of cancelled calls are not in it: no engine reports them.
        """
        total = Usage()
        for spent in self.members:
            if spent.shared or (used := spent.usage) is None:
                continue
            total.prompt += used.prompt
            total.completion += used.completion
            total.cached += used.cached
            total.reasoning += used.completion if spent.role == "proposer" else used.reasoning
        return total

    def usage_json(self) -> dict[str, Any]:
        """Return `usage` as OpenAI's object."""
        total = self.usage
        return {
            "prompt_tokens": total.prompt,
            "completion_tokens": total.completion,
            "total_tokens": total.total,
            "completion_tokens_details": {"reasoning_tokens": total.reasoning},
            "prompt_tokens_details": {"cached_tokens": total.cached},
        }

    def to_json(self) -> dict[str, Any]:
        """Return the object `moaa` of an answer."""
        dollars = [spent.usd for spent in self.members]
        known = [each for each in dollars if each is not None]
        return {
            "members": [spent.to_json() for spent in self.members],
            "left_out": [missing.to_json() for missing in self.left_out],
            "revision": self.revision,
            **({"usd": round(sum(known), 9)} if known and len(known) == len(dollars) else {}),
        }
