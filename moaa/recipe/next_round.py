"""The recipe of the next round of self-improvement, made from this round's recipe and its winner.

    follow(recipe, uri)     round k's recipe and winner -> round k+1's recipe
    planned(recipe)         the recipes of all rounds, before there is a winner

The winner replaces the target: it is trained further, and it writes and judges where the target
did. Its name is `<target>+round-<k>`. The judge of the evaluation stays the same, so that the
scores of all rounds can be compared.
"""

from __future__ import annotations

from typing import TypeVar

from moaa.recipe.method import Judge, Mixture
from moaa.recipe.rounds import SLICED, start_of
from moaa.recipe.schema import Part, Recipe

P = TypeVar("P", Mixture, Judge)


def follow(recipe: Recipe, winner: str, *, system_role: bool = True) -> Recipe:
    """Return the recipe of the next round. `winner`: the address of the model that won this round.
    `system_role`: whether it was trained to be asked with system messages."""
    old, start = recipe.target, start_of(recipe.target)
    new = f"{start}+round-{recipe.rounds.round}"
    won = recipe.models[old].model_copy(
        update={
            "source": winner,
            "revision": None,
            "endpoint": None,
            "system_role": recipe.models[old].system_role and system_role,
        }
    )
    kept = {name: model for name, model in recipe.models.items() if name == start or name != old}
    generate, label = recipe.generate, recipe.label
    return recipe.model_copy(
        update={
            "models": {**kept, new: won},
            "target": new,
            "prompts": recipe.prompts.model_copy(update=_slices(recipe)),
            "generate": generate.model_copy(
                update={
                    "mixture": _renamed(generate.mixture, old, new),
                    "teacher": new if generate.teacher == old else generate.teacher,
                }
            ),
            "label": label.model_copy(
                update={
                    "judge": _renamed(label.judge, old, new),
                    "model": new if label.model == old else label.model,
                }
            ),
            "evaluate": recipe.evaluate.model_copy(update=_evaluation(recipe, start)),
            "gate": recipe.gate and recipe.gate.model_copy(update={"against": "base"}),
            "rounds": recipe.rounds.model_copy(update={"round": recipe.rounds.round + 1}),
        }
    )


def planned(recipe: Recipe) -> list[Recipe]:
    """Return the recipes of all rounds from this one on, if every round is won. The addresses of
    their winners do not exist."""
    found = [recipe]
    while found[-1].rounds.round < recipe.rounds.n:
        number = found[-1].rounds.round
        found.append(follow(found[-1], f"{recipe.store.root.rstrip('/')}/winner-of-round-{number}"))
    return found


def _slices(recipe: Recipe) -> dict[str, object]:
    if recipe.rounds.prompts == "same":
        return {}
    return {
        name: tuple(
            source.model_copy(update={"offset": source.offset + (source.limit or 0)})
            for source in getattr(recipe.prompts, name)
        )
        for name in SLICED
    }


def _renamed(mixture: P, old: str, new: str) -> P:
    """Return the mixture with the members of one model changed to another model."""

    def of(member: Part) -> Part:
        return member.model_copy(update={"model": new}) if member.model == old else member  # type: ignore[attr-defined]

    members = {
        "proposers": tuple(of(member) for member in mixture.proposers),
        "aggregator": of(mixture.aggregator),
    }
    return mixture.model_copy(update=members)


def _evaluation(recipe: Recipe, start: str) -> dict[str, object]:
    """Return what is fixed from the second round on: the judge, and that the model at the start of
    the first round is measured too."""
    evaluate = recipe.evaluate
    found: dict[str, object] = {}
    if evaluate.judge is None and evaluate.judge_model is None:
        found["judge"] = recipe.evaluation_judge
    if start not in evaluate.contestants:
        # Main numbers compare with the first contestant.
        found["contestants"] = (start, *evaluate.contestants)
    return found
