"""Values that replace those of a recipe, by their paths: `--set dpo.beta=0.2` on the command line,
`{"dpo.beta": 0.2}` as the pipeline's parameter `overrides`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from moaa.errors import RecipeError
from moaa.recipe.addresses import Address, dotted, parse_path
from moaa.recipe.read import MAX_DEPTH, Given, given_of, value_of

OF_SETS: Final = "--set "
OF_MAPPING: Final = "overrides "
"""How the place of a value begins that replaces one of a file."""
_NAMED_TWICE: Final = re.compile(rf"^((?:{OF_SETS}|{OF_MAPPING})(.+?)): \2(?=[ :])")
"""The place and the name of a field in a mistake, if the place is that name."""


@dataclass(frozen=True, slots=True)
class Override:
    """One value, and its name in errors."""

    path: Address
    value: Given

    @property
    def where(self) -> str:
        """The value's origin for errors, for example `--set dpo.beta`."""
        return self.value.where


def of_sets(sets: Iterable[str], errors: list[str]) -> list[Override]:
    """Return the override in each `path=value`."""
    found = []
    for setting in sets:
        name, equals, text = setting.partition("=")
        path = parse_path(name.strip())
        if not equals or path is None:
            errors.append(
                f"--set {name or setting}: give it as path=value, like dpo.beta=0.1 or "
                "generate.mixture.proposers[0].system=…."
            )
            continue
        where = f"{OF_SETS}{name.strip()}"
        found.append(Override(path, value_of(text, where, errors)))
    return found


def of_mapping(overrides: Mapping[str, Any], errors: list[str]) -> list[Override]:
    """Return the override of each path of a JSON object, shorter paths first:
    an object has no order."""
    found: dict[Address, Override] = {}
    for name, value in overrides.items():
        where = f"{OF_MAPPING}{name}"
        path = parse_path(name.strip())
        if path is None:
            errors.append(
                f'{where}: write a path and a value, like {{"dpo.beta": 0.1}} or '
                '{"generate.mixture.proposers[0].system": "…"}.'
            )
            continue
        same = tuple(str(step) for step in path)
        if same in found:
            errors.append(f"{where}: this is the same field as {found[same].where}. Remove one.")
        if _is_deeper(value, MAX_DEPTH):
            errors.append(f"{where}: values are nested more than {MAX_DEPTH} deep.")
            continue
        found[same] = Override(path, given_of(value, where))
    return sorted(found.values(), key=lambda each: len(each.path))


def _is_deeper(value: Any, most: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most < 0 or any(_is_deeper(each, most - 1) for each in inside)


def apply(given: Given, overrides: Sequence[Override], errors: list[str]) -> None:
    """Put the values into the tree. Missing parts on the way are created:
    the schema checks them."""
    for each in overrides:
        _put(given, each, errors)


def refusal(errors: Iterable[str]) -> RecipeError:
    """Return all mistakes as one error. Each line names the field that was replaced once."""
    return RecipeError("\n".join(dict.fromkeys(_NAMED_TWICE.sub(r"\1", line) for line in errors)))


def value_at(given: Given, path: Address) -> Given | None:
    """Return the value at a path; None if there is none."""
    node: Given = given
    for step in path:
        if isinstance(node.value, list):
            index = _index(step)
            if not 0 <= index < len(node.value):
                return None
            node = node.value[index]
        elif isinstance(node.value, dict) and step in node.value:
            node = node.value[step]
        else:
            return None
    return node


def _put(given: Given, override: Override, errors: list[str]) -> None:
    path, value, where = override.path, override.value, override.where
    node = given
    for depth, step in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node.value, list):
            index = _index(step)
            if not 0 <= index < len(node.value):
                errors.append(
                    f"{where}: {dotted(path[:depth])} is a list of {len(node.value)}; name one of "
                    "them by its index, "
                    f"{dotted(path[:depth])}[0] to [{len(node.value) - 1}]. '{step}' is none."
                )
                return
            if last:
                node.value[index] = value
            else:
                node = node.value[index]
            continue
        if isinstance(step, int) or not (isinstance(node.value, dict) or node.value is None):
            errors.append(
                f"{where}: {dotted(path[:depth]) or 'the recipe'} has no '{dotted((step,))}' in it."
            )
            return
        if node.value is None:
            node.value = {}
        if last:
            node.value[step] = value
        else:
            node = node.value.setdefault(step, Given({}, where))


def _index(step: str | int) -> int:
    return step if isinstance(step, int) else int(step) if step.isdecimal() else -1
