"""What the recipe's fields are: their owners, neighbours and descriptions, read from the schema itself."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from moaa.recipe.read import Path
from moaa.recipe.schema import Part, Recipe


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the schema. `path` holds `*` for a name that the user gives and `[]` for a place in a list."""

    path: str
    owner: type[Part]
    info: FieldInfo


def part_of(annotation: Any) -> tuple[type[Part] | None, Literal["", "*", "[]"]]:
    """The `Part` inside an annotation, and whether it stands in a mapping (*), in a list ([]) or by itself."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation, ""
    if origin is Annotated:
        return part_of(get_args(annotation)[0])
    if origin in (Union, UnionType):
        for inner in get_args(annotation):
            if part_of(inner)[0]:
                return part_of(inner)
    if origin is dict:
        return part_of(get_args(annotation)[1])[0], "*"
    if origin is tuple:
        return part_of(get_args(annotation)[0])[0], "[]"
    return None, ""


def walk(owner: type[Part] = Recipe, prefix: str = "") -> Iterator[Field]:
    """Every field of the recipe in the schema's order, parts before what is in them."""
    for name, info in owner.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        yield Field(path, owner, info)
        part, kind = part_of(info.annotation)
        if part:
            yield from walk(part, path + {"": "", "*": ".*", "[]": "[]"}[kind])


def owner_of(path: Path) -> type[Part] | None:
    """The part that an address leads into: `("label", "judge")` -> `Judge`. None if it leads to no part."""
    owner: type[Part] | None = Recipe
    steps = iter(path)
    for step in steps:
        if owner is None or step not in owner.model_fields:
            return None
        owner, kind = part_of(owner.model_fields[str(step)].annotation)
        if kind:
            next(steps, None)
    return owner


def called(owner: type[Part]) -> str:
    """`JudgeMember` -> `the judge member`."""
    return "the " + re.sub(r"(?<=[a-z])(?=[A-Z])", " ", owner.__name__).lower()


def advice(key: str, owner: type[Part]) -> str:
    """What the user may have meant by an unknown key: the nearest field, the place where it is one, or all fields."""
    near = difflib.get_close_matches(key, owner.model_fields, 1, 0.6)
    if near:
        return f"Did you mean '{near[0]}'?"
    elsewhere = list(dict.fromkeys(field.path for field in walk() if field.path.rsplit(".", 1)[-1] == key))
    if elsewhere:
        return f"It is one elsewhere: {', '.join(elsewhere[:3])}. Fields here: {', '.join(owner.model_fields)}."
    return f"Fields here: {', '.join(owner.model_fields)}."
