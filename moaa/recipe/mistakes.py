"""Turns pydantic's errors into sentences: file:line, the field, what was given, what is allowed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from moaa.recipe.addresses import Address, dotted
from moaa.recipe.fields import advice, owner_of
from moaa.recipe.forms import in_words
from moaa.recipe.overrides import OF_MAPPING, OF_SETS
from moaa.recipe.read import Given, places, plain
from moaa.recipe.schema import Part, Problems, Recipe

P = TypeVar("P", bound=Part)
_HALF = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
"""Half a surrogate pair. A pair is a character in the form of JSON."""


def checked(given: Given, root: type[P], errors: list[str]) -> P | None:
    """Return the part in a document; None if it is not valid: `errors` then gets the mistakes in
    the form of `_explained`."""
    if halves := list(_half_characters(given)):
        errors += halves
        return None
    try:
        # JSON and strict: "5" is not a number, true is not 1, but a list is accepted as a tuple.
        return root.model_validate_json(json.dumps(plain(given)), strict=True)
    except ValidationError as error:
        errors += _explained(error, dict(places(given)), root)
        return None


def _half_characters(given: Given) -> Iterator[str]:
    """Yield an error for each text and name with half a surrogate pair, which is no character."""
    for address, item in places(given):
        texts = item.value if isinstance(item.value, dict) else [item.value]
        if any(isinstance(each, str) and _HALF.search(each) for each in texts):
            name = ascii(dotted(address))[1:-1] or "the document"
            yield f"{item.where}: {name} has half a character (a surrogate). Write it as UTF-8."


def _explained(error: ValidationError, given: dict[Address, Given], root: type[Part]) -> list[str]:
    """Return one line for each mistake, in the order of the schema, without those that only follow
    from another: of a value that is `wrong` already, or of a list with a wrong item.

    `given`: the values of the whole document, `root` its schema.
    """
    lines: list[str] = []
    found = error.errors(include_url=False)
    for item in found:
        address: Address = item["loc"]
        if any(_below(other["loc"], address) for other in found):
            continue
        problem = item.get("ctx", {}).get("error")
        if isinstance(problem, Problems):
            for inner, text in problem.found:
                path = dotted(address + inner)
                named = text if path in text else f"{path}: {text}"
                if not _is_wrong(address + inner, given):
                    lines.append(f"{_place(address + inner, given, inside=True)}: {named}")
        elif not _is_wrong(address, given):
            place = _place(address, given, inside=item["type"] == "value_error")
            lines.append(f"{place}: {sentence(item, root)}")
    return lines


def _below(address: Address, above: Address) -> bool:
    return len(address) > len(above) and address[: len(above)] == above


def _is_wrong(address: Address, given: dict[Address, Given]) -> bool:
    """Return whether an error names this value already, or one that it is in."""
    above = (address[:length] for length in range(len(address) + 1))
    return any(given[each].wrong for each in above if each in given)


def _place(address: Address, given: dict[Address, Given], *, inside: bool) -> str:
    """Return where the value was given; if it is missing, where its part was given.

    `inside`: values do not fit together. The one that replaces a recipe's is then the new one.
    """
    if inside and address in given:
        replaced = (
            each.where
            for path, each in given.items()
            if path[: len(address)] == address and each.where.startswith((OF_SETS, OF_MAPPING))
        )
        return next(replaced, given[address].where)
    while address and address not in given:
        address = address[:-1]
    return given[address].where


def sentence(mistake: ErrorDetails, root: type[Part]) -> str:
    """Return what is wrong with a field of `root`: its name, what was given, what is allowed."""
    kind, address = mistake["type"], mistake["loc"]
    message, given = mistake["msg"], mistake["input"]
    name = dotted(address) or ("the recipe" if root is Recipe else "the file")
    if address and address[-1] == "[key]":  # pydantic's word for the key itself
        name = f"{dotted(address[:-1])}: the name"
    if kind == "extra_forbidden":
        owner = owner_of(address[:-1], root) or root
        return f"{name} is not a known field. {advice(str(address[-1]), owner, root)}"
    if kind == "missing":
        return f"{name} is missing."
    if kind == "value_error":
        return f"{name}: {in_words(message)}."
    allowed = in_words(message)
    legal = re.findall(r"'([^']+)'", message) if kind == "literal_error" else []
    near = difflib.get_close_matches(str(given), legal, 1)
    if isinstance(given, str) and kind in ("model_type", "dict_type", "tuple_type"):
        return f"{name} is a text. {allowed}."  # not repeated: it may be a key
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"{name} is {short(given)}. {allowed}.{hint}"


def short(value: Any) -> str:
    """Return a value as errors show it: JSON, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
