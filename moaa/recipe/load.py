"""Loads a recipe: reads it, extends it, overrides it, inlines its files, checks it.

All mistakes are shown at once, each with its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moaa.errors import RecipeError, without_stop
from moaa.recipe import engine_rules, files, secrets
from moaa.recipe.addresses import Address, dotted
from moaa.recipe.files import MAX_BYTES
from moaa.recipe.mistakes import checked
from moaa.recipe.overrides import Override, apply, of_mapping, of_sets, refusal, value_at
from moaa.recipe.read import Given, copied, dump, merge, places, plain, read
from moaa.recipe.schema import Recipe

LOST_LINE_ENDS = (
    "Its line ends are lost: the field of Kubeflow's UI has only one line. Paste what "
    "`moaa recipe show RECIPE --json` prints, or give the recipe's s3:// address."
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked recipe, its resolved text, and where each value was given."""

    recipe: Recipe
    text: str
    """All given values as YAML: `extends` merged, `--set` applied, files inlined."""
    origins: dict[str, str]
    """`dpo.beta` -> `demo.yaml:40` or `--set dpo.beta`. A field that is missing has its default."""
    base: str
    """The text without `--set` and overrides."""
    overrides: dict[str, Any]
    """What `base` lacks: values by their paths. The two together are the recipe."""

    def rows(self) -> list[tuple[str, Any, str]]:
        """Return every value: its path, the value, and where it was given (or `default`)."""
        data = self.recipe.model_dump(mode="json")
        return [
            (dotted(path), value, self.origins.get(dotted(path), "default"))
            for path, value in _leaves(data)
        ]


def digest_of(recipe: Recipe) -> str:
    """Return a digest of all in a recipe that results can depend on: not where it runs, and not
    where its results are kept."""
    asked = recipe.model_dump(mode="json", exclude={"runtime", "plan", "pools", "store"})
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def text_of(recipe: Recipe) -> str:
    """Return a recipe as YAML, without default values: the form for lineage and rounds."""
    return dump(recipe.model_dump(mode="json", exclude_defaults=True))


def load_file(path: str | Path, sets: Sequence[str] = ()) -> Loaded:
    """Return the recipe in a file, with `sets` (`path=value`) applied.

    Raises `RecipeError` with every mistake, one line each: file:line, the field, what was given,
    what is allowed.
    """
    errors: list[str] = []
    root = Path(path).parent
    return _check(_file(Path(path), root, (), errors), root, of_sets(sets, errors), errors)


def load_text(
    text: str,
    sets: Sequence[str] = (),
    *,
    overrides: Mapping[str, Any] | None = None,
    name: str = "recipe",
) -> Loaded:
    """Return the recipe in a YAML or JSON text with `sets` and `overrides` applied.

    `overrides`: values by their paths. `name`: what errors call the file. A text has no folder, so
    `extends` and `file:PATH` are refused. Raises like `load_file`.
    """
    errors: list[str] = []
    given = _text(text, name, errors)
    if errors and _lost_line_ends(text):
        raise RecipeError(f"{errors[0]} {LOST_LINE_ENDS}")
    if "extends" in given.value:
        errors.append(
            f"{given.value['extends'].where}: `extends` needs a file to be relative to; give the "
            "recipe as a file."
        )
    replaced = [*of_sets(sets, errors), *of_mapping(overrides or {}, errors)]
    return _check(given, None, replaced, errors)


def _check(
    given: Given, folder: Path | None, replaced: Sequence[Override], errors: list[str]
) -> Loaded:
    """Apply overrides, inline files and validate; `errors` has the mistakes found so far."""
    for each in (given.value.get("rounds"), *(o.value for o in replaced if o.path == ("rounds",))):
        _lengthen(each)
    base = given
    if replaced:  # what is replaced may be wrong, but must be no secret: it is sent too
        base = copied(given)
        inline(base, folder, [])
        secrets.refuse_written(base, errors)
    apply(given, replaced, errors)
    inline(given, folder, errors)
    secrets.refuse_written(given, errors)
    if {"recipe", "variants"} <= set(given.value):
        raise RecipeError(f"{given.where}: this is a sweep, not a recipe. Give it to `moaa sweep`.")
    recipe = checked(given, Recipe, errors)
    if recipe:
        errors += _foreign_files(recipe, given, folder)
    text = dump(plain(given))
    if len(text.encode()) > MAX_BYTES:
        errors.append(
            f"{given.where.rsplit(':', 1)[0]}: the resolved recipe is {len(text.encode()):,} "
            f"bytes; {MAX_BYTES:,} is the most "
            f"that a pipeline parameter may hold safely. Shorten its instruction texts."
        )
    if errors or recipe is None:
        raise refusal(errors)
    values = {dotted(each.path): value_at(given, each.path) for each in replaced}
    return Loaded(
        recipe,
        text,
        {dotted(path): item.where for path, item in places(given) if path},
        dump(plain(base)) if replaced else text,
        {path: plain(value) for path, value in values.items() if value is not None},
    )


def _foreign_files(recipe: Recipe, given: Given, folder: Path | None) -> Iterator[str]:
    """Yield what is wrong with the files that engine arguments name, as far as they are here."""
    for name, model in recipe.models.items():
        field: Address = ("models", name, "engine_args")
        for argument, file in engine_rules.files(model.engine_args):
            try:
                if Path(file).exists():
                    files.confine(Path(file), folder)
            except (OSError, ValueError):  # too long for a name: the engine says so
                continue
            except RecipeError as e:
                written = value_at(given, field)
                where = written.where if written else given.where
                yield (
                    f"{where}: {dotted(field)}: {argument} {file} cannot be used: "
                    f"{without_stop(e)}."
                )


def _lengthen(rounds: Given | None) -> None:
    """Write `rounds: 3` as `rounds: {n: 3}`, so that the path `rounds.n` exists."""
    if rounds is not None and type(rounds.value) is int:
        rounds.value = {"n": Given(rounds.value, rounds.where)}


def _lost_line_ends(text: str) -> bool:
    """Return whether this is YAML of several lines that was pasted into a field of one line."""
    return "\n" not in text.strip() and not text.lstrip().startswith("{") and text.count(": ") > 1


def _text(text: str, name: str, errors: list[str]) -> Given:
    if (size := len(text.encode(errors="replace"))) > MAX_BYTES:
        raise RecipeError(
            f"{name}: {size:,} bytes are too many for a recipe; {MAX_BYTES:,} is the most."
        )
    return read(text, name, errors)


def _file(path: Path, root: Path, above: tuple[Path, ...], errors: list[str]) -> Given:
    """Return the tree of a file, merged over the trees of the files that it extends."""
    try:
        # The recipe itself may be a link: only the files that it uses are restricted.
        text = files.confined_text_of(path, root) if above else files.text_of(path)
    except RecipeError as e:
        why = str(e)
        if path.name == str(path) and not path.suffix and not path.exists():
            why = why.replace(
                "Check the path", "`moaa recipe list` lists those that come with moaa"
            )
        raise RecipeError(f"{path}: the recipe cannot be read: {why}.") from e
    if path.resolve() in above:
        raise RecipeError(
            f"{path}: the recipes extend each other in a circle: "
            f"{' -> '.join(p.name for p in (*above, path))}."
        )
    given = _text(text, str(path), errors)
    parent = given.value.pop("extends", None)
    if parent is None:
        return given
    if not isinstance(parent.value, str):
        errors.append(
            f"{parent.where}: extends must be the path of one recipe, relative to this one, or "
            f"the name of one that comes with moaa ({', '.join(files.shipped())})."
        )
        given.wrong = True
        return given
    try:
        extended = files.by_name(parent.value, path.parent)
        return merge(_file(extended, root, (*above, path.resolve()), errors), given)
    except RecipeError as e:
        raise RecipeError(f"{parent.where}: extends {parent.value}: {e}") from e


def inline(given: Given, base: Path | None, errors: list[str]) -> None:
    """Replace `file:PATH` in texts by the file's text, relative to the file with the path."""
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
            text = files.confined_text_of(folder / name, base).strip("\n")
        except RecipeError as e:
            errors.append(
                f"{item.where}: {dotted(path)}: {folder / name} cannot be read: {without_stop(e)}."
            )
            continue
        if not text.strip():
            errors.append(f"{item.where}: {dotted(path)}: {folder / name} has no text. Write it.")
            item.wrong = True
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
