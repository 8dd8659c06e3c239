"""Turns pydantic's errors into sentences: file:line, the field, what was given, what is allowed."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any, TypeVar

from pydantic import ValidationError

from moaa.recipe.addresses import Address, dotted
from moaa.recipe.fields import advice, owner_of
from moaa.recipe.read import Given, places, plain
from moaa.recipe.schema import Part, Problems, Recipe

P = TypeVar("P", bound=Part)


def checked(given: Given, root: type[P], errors: list[str]) -> P | None:
    """Return the part in a document; None if it is not valid: `errors` then gets the mistakes in
    the form of `explain`."""
    where = {path: item.where for path, item in places(given)}
    try:
        # JSON and strict: "5" is not a number, true is not 1, but a list is accepted as a tuple.
        return root.model_validate_json(json.dumps(plain(given)), strict=True)
    except ValidationError as error:
        errors += explain(error, where, root)
        return None


def explain(
    error: ValidationError, where: dict[Address, str], root: type[Part] = Recipe
) -> list[str]:
    """Return one line for each mistake, in the order of the schema;
    `root` is the whole document."""
    lines: list[str] = []
    for item in error.errors(include_url=False):
        address: Address = item["loc"]
        problem = item.get("ctx", {}).get("error")
        if isinstance(problem, Problems):
            for inner, text in problem.found:
                path = dotted(address + inner)
                named = text if path in text else f"{path}: {text}"
                lines.append(f"{_place(address + inner, where)}: {named}")
        else:
            lines.append(
                f"{_place(address, where)}: "
                f"{_sentence(item['type'], address, item['msg'], item['input'], root)}"
            )
    return lines


def _place(address: Address, where: dict[Address, str]) -> str:
    """Return where the value was given; if it is missing, where its part was given."""
    while address and address not in where:
        address = address[:-1]
    return where[address]


def _sentence(kind: str, address: Address, message: str, given: Any, root: type[Part]) -> str:
    name = dotted(address) or ("the recipe" if root is Recipe else "the file")
    if kind == "extra_forbidden":
        owner = owner_of(address[:-1], root) or root
        return f"{name} is not a known field. {advice(str(address[-1]), owner, root)}"
    if kind == "missing":
        return f"{name} is missing."
    if kind == "value_error":
        return f"{name}: {message.removeprefix('Value error, ')}."
    allowed = message.replace("Input should be", "It must be", 1).replace(
        "an object", "a mapping of fields"
    )
    allowed = allowed.replace("a valid dictionary or instance of", "a mapping of fields:")
    allowed = re.sub(r"String should match pattern '(.*)'", r"It must match \1", allowed)
    allowed = re.sub(
        r"Tuple should have at least (\d+) item.*", r"It must have at least \1", allowed
    )
    legal = re.findall(r"'([^']+)'", message) if kind == "literal_error" else []
    near = difflib.get_close_matches(str(given), legal, 1)
    if isinstance(given, str) and kind in ("model_type", "dict_type", "tuple_type"):
        return f"{name} is a text. {allowed}."  # not repeated: it may be a key
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"{name} is {_short(given)}. {allowed}.{hint}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
