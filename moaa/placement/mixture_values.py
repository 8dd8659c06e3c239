"""Values of moaa-serving for the mixture that its gateway serves."""

from __future__ import annotations

from typing import Any, Final

from moaa.progress.messages import log
from moaa.recipe.schema import Recipe

MOST_PROPOSALS: Final = 8
"""The most proposals of a mixture that is served (`moaa.gateway.mixtures.settings`)."""


def of(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's mixture under the recipe's name, and what the gateway needs to know about
    its models.

    Empty if the SFT data do not come from a mixture that can be served.
    """
    mixture = recipe.generate.mixture
    if not recipe.generate.mixes or mixture.proposals > MOST_PROPOSALS:
        return {}
    if turns := taking_turns(recipe):
        log.warning(
            f"the mixture is not served: {', '.join(turns)} take turns "
            "(runtime.engines.schedule: by-turns), so they are never up together"
        )
        return {}
    known: dict[str, dict[str, Any]] = {}
    for name in sorted(mixture.models):
        model = recipe.models[name]
        more: dict[str, Any] = {} if model.system_role else {"system_role": False}
        if model.price:
            more["price"] = model.price.model_dump(mode="json")
        if model.endpoint:
            more["endpoints"] = [model.endpoint.url]
            more |= {"served_name": model.endpoint.model} if model.endpoint.model else {}
            more |= {"key_env": model.endpoint.key_env} if model.endpoint.key_env else {}
            more |= {"allow_http": True} if model.endpoint.allow_http else {}
        if more:
            known[name] = more
    name = recipe.name if recipe.name not in recipe.models else f"{recipe.name}-mixture"
    gateway: dict[str, Any] = {"config": {"models": known}} if known else {}
    if any("key_env" in each for each in known.values()):
        gateway["envSecrets"] = [recipe.runtime.cluster.env_secret]
    return {
        "mixtures": {name: mixture.model_dump(mode="json", exclude_defaults=True)},
        **({"gateway": gateway} if gateway else {}),
    }


def taking_turns(recipe: Recipe) -> list[str]:
    """Return the models of the mixture that are never up together,
    because our engines take turns."""
    if recipe.runtime.engines.schedule != "by-turns":
        return []
    ours = [name for name in recipe.generate.mixture.models if not recipe.models[name].endpoint]
    return sorted(ours) if len(ours) > 1 else []
