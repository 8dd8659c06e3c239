"""The fields of a mixture that is served: those of the recipe, and how long it waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Self

from pydantic import Field, model_validator

from moaa.mixture import ReferencePlace
from moaa.recipe.document import Part
from moaa.recipe.method import Mixture

MOST: Final = 8
"""The most proposals of one layer. Each request costs that many calls, so that a mixture cannot be
used to pass a limit."""

Address = tuple[str | int, ...]


class Cache(Part):
    """Which proposals are used again: those at temperature 0 or with a seed, for the same key."""

    entries: int = Field(1000, ge=0)
    """The most proposals kept. 0: none; equal calls in flight are still shared."""
    ttl_s: float = Field(600, gt=0)


class Online(Part):
    """How long a served mixture waits, in seconds, and what it does when a member is missing."""

    quorum: int | None = Field(None, ge=1)
    """How many proposals are enough. Default: `min_proposers`, or all but one."""
    grace_s: float = Field(1.0, ge=0)
    """After the quorum, wait this long for the other proposers, or for `grace_share` of the time
    that the quorum took, if that is longer."""
    grace_share: float = Field(0.25, ge=0)
    deadline_s: float = Field(60, gt=0)
    """The most time for the proposals of all layers. Without a quorum by then the answer is 504."""
    first_token_s: float = Field(30, gt=0)
    """How long to wait for the aggregator's first token while there is a fallback."""
    fallback: tuple[str, ...] | None = None
    """Names of the proposers whose models aggregate if the aggregator fails before its first token,
    in this order. Only members that have answered are asked. Default: all."""
    references: ReferencePlace = "system"
    """Where the aggregator sees the proposals. system: in the system message, as in pipelines.
    last: after the user's last message. The chat's history then stays a prefix, which engines
    cache."""
    cache: Cache = Cache()
    """Whether proposals that would be the same are used again."""


class OnlineMixture(Mixture):
    """The recipe's mixture, served under its own name."""

    online: Online = Online()
    """How long it waits, and what it does when a member is missing."""

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if self.proposals > MOST:
            raise ValueError(
                f"a layer has {self.proposals} proposals, and a served mixture may have {MOST} "
                "at most. Leave some out, or make sampling.n smaller"
            )
        if self.online.quorum is not None and self.online.quorum > self.proposals:
            raise ValueError(
                f"online.quorum is {self.online.quorum}, but a layer has {self.proposals} proposals"
            )
        labels = {member.label for member in self.proposers}
        if unknown := sorted(set(self.online.fallback or ()) - labels):
            raise ValueError(
                f"online.fallback has {unknown}, and these are not proposers "
                f"({', '.join(sorted(labels))})"
            )
        return self

    @property
    def quorum(self) -> int:
        """How many proposals of a layer are enough."""
        return self.online.quorum or super().quorum

    @property
    def calls(self) -> int:
        """The calls to engines of one request, as limits count them."""
        return len(self.proposers) * (self.layers - 1) + 1


def problems(
    mixtures: Mapping[str, OnlineMixture], turns: Mapping[str, str | None]
) -> Iterator[tuple[Address, str]]:
    """Yield each problem of the mixtures: its address below the file, and a sentence.

    `turns`: all models; the value is the group in which one model is up at a time, if any.
    """
    models = turns.keys()
    for name, mixture in mixtures.items():
        if name in models:
            yield ("mixtures", name), f"'{name}' is one of `models` too. Give it another name."
        yield from _never_up_together(name, mixture, turns)
        members = [(("proposers", at), each) for at, each in enumerate(mixture.proposers)]
        for where, member in [*members, (("aggregator",), mixture.aggregator)]:
            address: Address = ("mixtures", name, *where, "model")
            if member.model in mixtures:
                yield (
                    address,
                    f"'{member.model}' is a mixture, and a mixture of mixtures is not served: one "
                    "request would become too many. Name one of `models`.",
                )
            elif member.model not in models:
                known = ", ".join(models) or "there are none"
                yield address, f"'{member.model}' is not one of the models ({known})."


def _never_up_together(
    name: str, mixture: OnlineMixture, turns: Mapping[str, str | None]
) -> Iterator[tuple[Address, str]]:
    groups: dict[str, list[str]] = {}
    for model in sorted(mixture.models):
        if group := turns.get(model):
            groups.setdefault(group, []).append(model)
    for group, several in groups.items():
        if len(several) > 1:
            yield (
                ("mixtures", name),
                f"its models {', '.join(several)} take turns in '{group}': one of them is up at a "
                "time, so the mixture could never answer. Give them GPUs of their own, or make it "
                "of one model with sampling.n (Self-MoA).",
            )
