"""Load a recipe: read it, extend it, override it, inline its files, check it.

All mistakes are shown at once, each with its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moaa.errors import RecipeError
from moaa.recipe import files, secrets
from moaa.recipe.explain import explain
from moaa.recipe.files import MAX_BYTES
from moaa.recipe.read import (
    Address,
    Given,
    dotted,
    dump,
    merge,
    parse_path,
    places,
    plain,
    read,
    value_of,
)
from moaa.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked recipe, its resolved text, and where each value was given."""

    recipe: Recipe
    text: str
    """YAML of all that was given: `extends` merged, `--set` applied, files inlined."""
    origins: dict[str, str]
    """`dpo.beta` -> `demo.yaml:40` or `--set dpo.beta`. A field that is missing has its default."""

    def rows(self) -> list[tuple[str, Any, str]]:
        """Return every value: its path, the value, and where it was given (or `default`)."""
        data = self.recipe.model_dump(mode="json")
        return [
            (dotted(path), value, self.origins.get(dotted(path), "default"))
            for path, value in _leaves(data)
        ]


def load_file(path: str | Path, sets: Sequence[str] = ()) -> Loaded:
    """Return the recipe in a file, with `sets` (`path=value`) applied.

    Raises `RecipeError` with all that is wrong, one line each: file:line, the field, what was
    given, what is allowed.
    """
    errors: list[str] = []
    root = Path(path).parent
    return _check(_file(Path(path), root, (), errors), root, sets, errors)


def load_text(text: str, sets: Sequence[str] = (), *, name: str = "recipe") -> Loaded:
    """Return the recipe in a YAML or JSON text; `name` stands for the file in errors.

    A text has no folder: `extends` and `file:PATH` are refused. Raises as `load_file` does.
    """
    errors: list[str] = []
    given = _text(text, name, errors)
    if "extends" in given.value:
        errors.append(
            f"{given.value['extends'].where}: `extends` needs a file to be relative to; give the "
            "recipe as a file."
        )
    return _check(given, None, sets, errors)


def _check(given: Given, base: Path | None, sets: Sequence[str], errors: list[str]) -> Loaded:
    """Apply `sets`, inline files and validate; `errors` holds what reading has found so far."""
    for setting in sets:
        _set(given, setting, errors)
    _inline(given, base, errors)
    where = {path: item.where for path, item in places(given)}
    secrets.refuse_written(given, errors)
    try:
        # JSON and strict: "5" is no number, true is not 1, yet a list is a tuple.
        recipe = Recipe.model_validate_json(json.dumps(plain(given)), strict=True)
    except ValidationError as e:
        errors += explain(e, where)
    text = dump(plain(given))
    if len(text.encode()) > MAX_BYTES:
        errors.append(
            f"{given.where.rsplit(':', 1)[0]}: the resolved recipe is {len(text.encode()):,} "
            f"bytes; {MAX_BYTES:,} is the most "
            f"that a pipeline parameter may hold safely. Shorten its instruction texts."
        )
    if errors:
        raise RecipeError("\n".join(dict.fromkeys(errors)))
    return Loaded(recipe, text, {dotted(path): place for path, place in where.items() if path})


def _text(text: str, name: str, errors: list[str]) -> Given:
    if len(text.encode()) > MAX_BYTES:
        raise RecipeError(
            f"{name}: {len(text.encode()):,} bytes are too many for a recipe; {MAX_BYTES:,} is "
            "the most."
        )
    return read(text, name, errors)


def _file(path: Path, root: Path, above: tuple[Path, ...], errors: list[str]) -> Given:
    """Return the tree of a file, laid on the trees of the files it extends."""
    if path.resolve() in above:
        raise RecipeError(
            f"{path}: the recipes extend each other in a circle: "
            f"{' -> '.join(p.name for p in (*above, path))}."
        )
    try:
        # The recipe itself may be a link: only what it names is confined.
        text = files.text_of(path, root if above else path.resolve().parent)
    except RecipeError as e:
        a_name = path.name == str(path) and not path.suffix
        advice = (
            "`moaa recipe list` lists those that come with moaa" if a_name else "Check the path"
        )
        raise RecipeError(f"{path}: the recipe cannot be read: {e}. {advice}.") from e
    given = _text(text, str(path), errors)
    parent = given.value.pop("extends", None)
    if parent is None:
        return given
    if not isinstance(parent.value, str):
        errors.append(
            f"{parent.where}: extends must be the path of one recipe, relative to this one, or "
            f"the name of one that comes with moaa ({', '.join(files.shipped())})."
        )
        return given
    try:
        extended = files.by_name(parent.value, path.parent)
        return merge(_file(extended, root, (*above, path.resolve()), errors), given)
    except RecipeError as e:
        raise RecipeError(f"{parent.where}: extends {parent.value}: {e}") from e


def _set(given: Given, setting: str, errors: list[str]) -> None:
    """Apply one `path=value`. Missing parts on the way are made: the schema then checks them."""
    name, equals, text = setting.partition("=")
    path = parse_path(name.strip())
    if not equals or path is None:
        errors.append(
            f"--set {name}: give it as path=value, like dpo.beta=0.1 or "
            "generate.mixture.proposers[0].system=…."
        )
        return
    where = f"--set {name.strip()}"
    value = value_of(text, where, errors)
    node = given
    for depth, step in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node.value, list):
            index = step if isinstance(step, int) else int(step) if step.isdecimal() else -1
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


def _inline(given: Given, base: Path | None, errors: list[str]) -> None:
    """Replace `file:PATH` in texts by the file's text, relative to the recipe that names it."""
    for path, item in places(given):
        if not (
            path
            and path[-1] in secrets.TEXT_FIELDS
            and isinstance(item.value, str)
            and item.value.startswith("file:")
        ):
            continue
        name = item.value.removeprefix("file:").strip()
        if base is None:
            errors.append(
                f"{item.where}: {dotted(path)} is 'file:{name}', but a recipe given as text has "
                "no folder. Write the text itself."
            )
            continue
        named_in = item.where.rsplit(":", 1)[0]
        folder = base if item.where.startswith("--set ") else Path(named_in).parent
        try:
            text = files.text_of(folder / name, base).strip("\n")
        except RecipeError as e:
            errors.append(f"{item.where}: {dotted(path)}: {folder / name} cannot be read: {e}.")
            continue
        if text.startswith("file:"):
            errors.append(
                f"{item.where}: {dotted(path)}: {folder / name} begins with 'file:' itself; it "
                "must hold the text."
            )
        item.value = text


def _leaves(data: Any, path: Address = ()) -> Iterator[tuple[Address, Any]]:
    children = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    if not children or not data:
        yield path, data
    for step, child in children:
        yield from _leaves(child, (*path, step))
