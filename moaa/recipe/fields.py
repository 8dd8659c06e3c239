"""The recipe's fields with their owners and descriptions, read from the schema itself.

python -m moaa.recipe.fields docs/recipe.md      rewrites the tables of that page
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from moaa.recipe.addresses import Address
from moaa.recipe.read import dump
from moaa.recipe.schema import Part, Recipe

START, END = (
    "<!-- fields: written by `python -m moaa.recipe.fields docs/recipe.md` -->",
    "<!-- end of fields -->",
)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the schema. In `path`, `*` is a name that the user chooses, `[]` a list's item."""

    path: str
    owner: type[Part]
    info: FieldInfo


def part_of(annotation: Any) -> tuple[type[Part] | None, Literal["", "*", "[]"]]:
    """Return the `Part` in an annotation, and whether it is in a mapping (*) or a list ([])."""
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
    """Yield every field of the recipe in the schema's order, a part before its fields."""
    for name, info in owner.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        yield Field(path, owner, info)
        part, kind = part_of(info.annotation)
        if part:
            yield from walk(part, path + {"": "", "*": ".*", "[]": "[]"}[kind])


def names_of(owner: type[Part]) -> list[str]:
    """Return the names of a part's fields, as a document has them."""
    return [info.alias or name for name, info in owner.model_fields.items()]


def owner_of(address: Address, root: type[Part] = Recipe) -> type[Part] | None:
    """Return the part at an address: `("label", "judge")` -> `Judge`. None if there is none."""
    owner: type[Part] | None = root
    steps = iter(address)
    for step in steps:
        if owner is None or step not in owner.model_fields:
            return None
        owner, kind = part_of(owner.model_fields[str(step)].annotation)
        if kind:
            next(steps, None)
    return owner


def advice(key: str, owner: type[Part], root: type[Part] = Recipe) -> str:
    """Return a hint for an unknown key: a similar field, its right place, or all fields."""
    names = names_of(owner)
    near = difflib.get_close_matches(key, names, 1, 0.6)
    if near:
        return f"Did you mean '{near[0]}'?"
    elsewhere = list(
        dict.fromkeys(field.path for field in walk(root) if field.path.rsplit(".", 1)[-1] == key)
    )
    if elsewhere:
        return f"It is one elsewhere: {', '.join(elsewhere[:3])}. Fields here: {', '.join(names)}."
    return f"Fields here: {', '.join(names)}."


def table(root: type[Part] = Recipe) -> str:
    """Return all fields as Markdown for a page of docs: a heading and a table for each part."""
    notes = _notes(root)
    lines: list[str] = []
    seen: set[type[Part]] = set()
    for field in walk(root):
        if field.owner not in seen:
            seen.add(field.owner)
            where = [f.path for f in walk(root) if part_of(f.info.annotation)[0] is field.owner]
            places = ", ".join(f"`{path}`" for path in where) or "the whole file"
            about = " ".join((field.owner.__doc__ or "").split())
            lines += [
                "",
                f"### {field.owner.__name__}: {places}",
                "",
                about,
                "",
                "| field | type | default | |",
                "|---|---|---|---|",
            ]
            lines += [
                _row(name, info, _note(notes, field.owner, name))
                for name, info in field.owner.model_fields.items()
            ]
    return "\n".join(lines).strip() + "\n"


def _row(name: str, info: FieldInfo, note: str) -> str:
    cells = (f"`{name}`", _type(info), _default(info), " ".join(note.split()))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(info: FieldInfo) -> str:
    bounds = {"Gt": ">", "Ge": "≥", "Lt": "<", "Le": "≤"}
    limits = [
        f"{sign} {value:.10g}"
        for m in info.metadata
        for kind, sign in bounds.items()
        for value in [getattr(m, kind.lower(), None)]
        if value is not None
    ]
    return " ".join([_named(info.annotation), ", ".join(limits)]).strip()


def _named(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _named(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return _named(next(a for a in arguments if a is not type(None)))
    if origin is tuple:
        return f"list of {_named(arguments[0])}"
    if origin is dict:
        return f"{_named(arguments[1])} by name"
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation.__name__
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[annotation]


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    default = info.default
    if isinstance(default, Part):
        given = default.model_dump(
            mode="json", exclude_defaults=False, include=default.model_fields_set
        )
        return f"`{dump(given, flow=True)}`" if given else ""
    return "" if default in (None, "", (), {}) else f"`{dump(default, flow=True)}`"


def _note(notes: dict[tuple[str, str], str], owner: type[Part], name: str) -> str:
    """Return the field's description: its own, or that of a class it inherits from."""
    return next((notes[c.__name__, name] for c in owner.__mro__ if (c.__name__, name) in notes), "")


def _notes(root: type[Part]) -> dict[tuple[str, str], str]:
    """Return the texts below the fields in the schema's source: (class, field) -> text."""
    notes: dict[tuple[str, str], str] = {}
    owners = {
        each for field in walk(root) for each in field.owner.__mro__ if issubclass(each, Part)
    }
    modules = {sys.modules[owner.__module__] for owner in owners}
    bodies = [node for module in modules for node in ast.parse(inspect.getsource(module)).body]
    for node in bodies:
        if isinstance(node, ast.ClassDef):
            for field, text in pairwise(node.body):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(text, ast.Expr)
                ):
                    notes[node.name, field.target.id] = str(ast.literal_eval(text.value))
    return notes


def write(page: Path, start: str, tables: str) -> None:
    """Rewrite the tables of a page, between its line `start` and `END`."""
    before, _, after = page.read_text(encoding="utf-8").partition(start)
    page.write_text(
        before + start + "\n" + tables + END + after.partition(END)[2], encoding="utf-8"
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]), START, table())
