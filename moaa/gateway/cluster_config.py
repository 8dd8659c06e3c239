"""The parts of a gateway's file about the cluster and about promoted models.

models:
  smol: {service: ens-smol, key_env: VLLM_API_KEY}
  aligned-a: {service: ens-aligned-a, served_name: aligned, key_env: VLLM_API_KEY}
  aligned-b: {service: ens-aligned-b, served_name: aligned, key_env: VLLM_API_KEY}
promoted:
  aligned:
    slots: {a: aligned-a, b: aligned-b}
    config_map: ens-aligned         # its shares; without a cluster: `share_of_b: 5`
cluster:
  wake: {holder: gateway/ens}
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from moaa.recipe.document import Part, Problems
from moaa.recipe.forms import form


class PromotedModel(Part):
    """One name with two slots. Each conversation stays with its slot."""

    slots: dict[Literal["a", "b"], str]
    """The two of `models` that answer, by slot."""
    config_map: str | None = Field(None, min_length=1)
    """The ConfigMap with the shares. The gateway watches it; `moaa promote` and the guard write it.
    Default: none; `share_of_b` is used until the gateway is restarted."""
    share_of_b: int = Field(0, ge=0, le=100)
    """Per cent of the conversations that slot b answers, without a ConfigMap."""
    guard: bool = True
    """Set a new version's share to 0 when it answers worse than the version in production."""
    stays_up: bool = True
    """Keep the slots that have a share up, by leases. Otherwise requests wake them."""

    @model_validator(mode="after")
    def _two_slots(self) -> Self:
        if set(self.slots) != {"a", "b"} or len(set(self.slots.values())) < 2:
            raise Problems([(("slots",), "it needs two different models, `a` and `b`.")])
        return self


class WakePart(Part):
    """Wakes models that are asleep. A key needs the right `wake` to start one."""

    holder: Annotated[
        str, form(r"gateway/[A-Za-z0-9._-]+", "gateway/NAME, of letters, digits, ., _ and -")
    ] = "gateway/moaa"
    """The holder of the leases: the same in all replicas of a gateway."""
    idle_s: float = Field(900, gt=0)
    """A model without a request for this long goes to sleep again."""
    hold_s: float = Field(900, gt=0)
    """A streamed request waits at most this long for its model."""


class ClusterPart(Part):
    """The cluster that the gateway runs in."""

    namespace: str | None = None
    """Where the Services are. Default: the gateway's own namespace."""
    wake: WakePart | None = None
    """Wake models that are asleep. Default: never."""


def slot_problems(
    promoted: Mapping[str, PromotedModel], models: Collection[str]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each problem of the slots: its address in the file, and a sentence."""
    taken: dict[str, str] = {}
    for name, each in promoted.items():
        if name in models:
            yield ("promoted", name), "a model has this name too. Rename one of the two."
        for slot, model in each.slots.items():
            where: tuple[Any, ...] = ("promoted", name, "slots", slot)
            if model not in models:
                yield where, f"'{model}' is not one of the models ({', '.join(models)})."
            elif model in taken:
                yield where, f"'{model}' is already a slot of '{taken[model]}'."
            taken.setdefault(model, name)
