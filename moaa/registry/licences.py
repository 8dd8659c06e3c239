"""What the licences of a run's models say about publishing a model trained on their outputs.

The table is `licences.yaml`, with its sources. Not legal advice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from moaa.recipe.document import Part
from moaa.recipe.rounds import start_of
from moaa.recipe.schema import Recipe

LicenceOutcome = Literal["allowed", "conditions", "conflict", "unknown"]


class Licence(Part):
    """One licence of `licences.yaml`."""

    title: str
    outputs: Literal["allowed", "conditions", "forbidden"]
    source: str
    models: tuple[str, ...] = ()
    clause: str = ""
    prefix: str = ""
    show: str = ""
    duties: tuple[str, ...] = ()
    allows: tuple[str, ...] = ()
    """Families that may be trained on outputs although this is otherwise forbidden (`except`)."""


@dataclass(frozen=True, slots=True)
class Use:
    """A model whose outputs are in the trained model, and what its licence says about that."""

    model: str
    """The model's name in the recipe."""
    published_name: str
    roles: tuple[str, ...]
    """What the model did: `target`, `wrote data`, `chose preferences`."""
    licence: str
    """Its licence in the table; empty if it is not known."""
    outcome: LicenceOutcome
    why: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What follows from all licences together."""

    uses: tuple[Use, ...]
    prefixes: tuple[str, ...]
    """The required start of the published model's name."""
    show: tuple[str, ...]
    """Lines that its page must have."""
    duties: tuple[str, ...]

    @property
    def conflicts(self) -> list[Use]:
        """The uses that a licence forbids."""
        return [use for use in self.uses if use.outcome == "conflict"]

    @property
    def unknown(self) -> list[Use]:
        """The uses whose licence is not known."""
        return [use for use in self.uses if use.outcome == "unknown"]


@cache
def table() -> dict[str, Licence]:
    """Return the licences by their names."""
    return {name: Licence.model_validate(fields) for name, fields in _read()["licences"].items()}


def licence_of(published_name: str, given: str | None = None) -> str:
    """Return the name of a model's licence: the one in the recipe, else by the model's own name;
    empty if it is not known."""
    if given is not None:
        return given
    known = [
        (pattern, name)
        for name, licence in table().items()
        for pattern in licence.models
        if fnmatchcase(published_name, pattern)
    ]
    # The longest pattern is the most exact: Qwen2.5-72B before Qwen2.5.
    return max(known, key=lambda each: len(each[0]), default=("", ""))[1]


def findings(recipe: Recipe) -> Findings:
    """Return what the licences say about publishing it: those of the target, of the models that
    wrote its data, and of those that chose its preferences."""
    roles: dict[str, list[str]] = {recipe.target: ["target"]}
    for names, role in (
        (recipe.generating, "wrote data"),
        (
            recipe.label.models_of(recipe.label.labeller) if recipe.prefers else (),
            "chose preferences",
        ),
    ):
        for name in sorted(names):
            roles.setdefault(name, []).append(role)
    target = recipe.models[start_of(recipe.target)].published_name
    uses = tuple(_use(recipe, name, tuple(of), target) for name, of in roles.items())
    named = [table()[use.licence] for use in uses if use.licence in table()]
    return Findings(
        uses,
        prefixes=_once(each.prefix for each in named),
        show=_once(each.show for each in named),
        duties=_once(duty for each in named for duty in each.duties),
    )


def _use(recipe: Recipe, model: str, roles: tuple[str, ...], target: str) -> Use:
    fields = recipe.models[start_of(model)]  # a winner has the licence of its first model
    name = licence_of(fields.published_name, fields.licence)

    def use(outcome: LicenceOutcome, why: str) -> Use:
        return Use(model, fields.published_name, roles, name, outcome, why)

    if not name:
        return use("unknown", f"the licence of {fields.published_name} is not known")
    if name not in table():
        return use("unknown", f"the licence '{name}' is not in the table of licences")
    licence = table()[name]
    if roles == ("target",) or licence.outputs == "allowed":
        conditions = bool(licence.prefix or licence.show or licence.duties)
        return use("conditions" if conditions else "allowed", licence.title)
    if licence.outputs == "forbidden":
        if any(_of_family(target, family) for family in licence.allows):
            return use("conditions", f"{licence.title}; the target is of its own family")
        return use("conflict", f"{licence.title}, {licence.clause}")
    return use("conditions", licence.title)


def _of_family(published_name: str, family: str) -> bool:
    return any(fnmatchcase(published_name, pattern) for pattern in _read()["families"][family])


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


@cache
def _read() -> dict[str, dict[str, Any]]:
    text = (files("moaa.registry") / "licences.yaml").read_text("utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)
    for licence in found["licences"].values():
        licence["allows"] = licence.pop("except", ())
    return found


def refusal(recipe: Recipe, found: Findings) -> str:
    """Return why the recipe's model may not be published; empty if it may."""
    publish = recipe.publish
    if publish is None:
        return ""
    name = publish.name or recipe.name
    if found.conflicts and not publish.accept_licence_conflict:
        reasons = "; ".join(
            f"{use.model} ({', '.join(use.roles)}): {use.why}" for use in found.conflicts
        )
        return (
            f"licences forbid it: {reasons}. Use other models, or write into "
            "publish.accept_licence_conflict why it is allowed here."
        )
    for prefix in found.prefixes:
        if not name.startswith(prefix):
            return (
                f"the name '{name}' must begin with '{prefix}': a licence of its models requires "
                f"it. Set publish.name to '{prefix}-{name}'."
            )
    return ""
