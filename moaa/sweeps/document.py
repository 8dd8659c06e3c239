"""The YAML of a sweep: a recipe, and named variants that set some of its fields.

name: paper-tables
recipe: paper-llama                 # a recipe that comes with moaa, or a file in the same folder
variants:
  paper: {about: The paper's own choice}
  random-proposer: {set: [generate.source=random], about: Table 3}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from moaa.errors import RecipeError, without_stop
from moaa.recipe.document import Part
from moaa.recipe.fields import names_of
from moaa.recipe.files import by_name, document_of, shipped
from moaa.recipe.forms import small_letters
from moaa.recipe.load import Loaded, load_file
from moaa.recipe.mistakes import checked
from moaa.recipe.read import Given, read
from moaa.recipe.schema import Recipe
from moaa.recipe.secrets import refuse_written
from moaa.stages.table import up_to

Name = Annotated[str, small_letters(30)]
"""The most characters of both names, which together name a run, possibly a Job."""

SHIPPED: Final = Path(__file__).parents[1] / "pipelines" / "sweeps"
"""The sweeps that come with moaa."""


class VariantFields(Part):
    """One variant: the fields that it sets, and its purpose."""

    sets: tuple[str, ...] = Field((), alias="set")
    about: str = ""


class Document(Part):
    """The file of a sweep."""

    name: Name
    recipe: str
    until: str = "evaluate"
    at_once: int = Field(1, ge=1)
    budget_usd: float | None = Field(None, ge=0)
    sets: tuple[str, ...] = Field((), alias="set")
    variants: dict[Name, VariantFields] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant, with its whole recipe."""

    name: str
    about: str
    sets: tuple[str, ...]
    """All fields that it sets, including those that the sweep sets for every variant."""
    loaded: Loaded
    run_id: str
    """The run's name, the same each time, so that the sweep's command continues it."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Variants of one recipe. `at_once`: how many run at the same time. `budget_usd`: only variants
    whose planned price fits into it are started."""

    name: str
    recipe: Path
    until: str
    at_once: int
    budget_usd: float | None
    variants: tuple[Variant, ...]


def load(path: Path) -> Sweep:
    """Return the sweep in a file. Raises RecipeError with every problem in it,
    or in one of its recipes."""
    given, document = _document(path)
    recipe = _recipe(path, document.recipe, given.value["recipe"].where)
    _refuse_unknown_stage(document.until, given.value.get("until"))
    problems: dict[str, list[str]] = {}
    variants = []
    for name, fields in document.variants.items():
        sets = (*document.sets, *fields.sets)
        try:
            loaded = load_file(recipe, sets)
        except RecipeError as error:
            for line in str(error).splitlines():
                problems.setdefault(line, []).append(name)
            continue
        run_id = f"{document.name}-{name}"
        variants.append(Variant(name, fields.about, sets, loaded, run_id))
    lines = [
        _problem(line, given.value["variants"], names, document) for line, names in problems.items()
    ]
    if roots := _several_stores(variants):
        lines.append(
            f"{path}: the variants keep their results in different places ({', '.join(roots)}), so "
            "that they share no stage. Set store.root for all of them: use `set` next to "
            "`variants`."
        )
    if lines:
        raise RecipeError("\n".join(lines))
    return Sweep(
        document.name,
        recipe,
        document.until,
        document.at_once,
        document.budget_usd,
        tuple(variants),
    )


def _document(path: Path) -> tuple[Given, Document]:
    try:
        text = document_of(path, "the sweep")
    except RecipeError as error:
        named = ", ".join(sorted(each.stem for each in SHIPPED.glob("*.yaml")))
        said = f"Give the path of a sweep's file, or the name of one that comes with moaa: {named}"
        raise RecipeError(str(error).replace("Check the path", said)) from None
    errors: list[str] = []
    given = read(text, str(path), errors, "a sweep")
    ours = set(names_of(Document))
    of_recipes = {"extends", *Recipe.model_fields}
    if not {"recipe", "variants"} & set(given.value) and (set(given.value) - ours) & of_recipes:
        raise RecipeError(
            f"{path}: this is a recipe, not a sweep. Give it to `moaa run`, or write a sweep "
            f"that names it: `recipe: {path.name}`, and `variants`."
        )
    refuse_written(given, errors)
    document = checked(given, Document, errors)
    if errors or document is None:
        raise RecipeError("\n".join(errors))
    return given, document


def _recipe(path: Path, name: str, where: str) -> Path:
    """Return the file of the recipe that a sweep names."""
    found = by_name(name, path.parent) if name.strip() else path.parent
    if not found.is_file():
        raise RecipeError(
            f"{where}: recipe is '{name}', but {found} is no file. Give the path of a recipe, "
            f"relative to this file, or the name of one that comes with moaa: "
            f"{', '.join(shipped())}."
        )
    return found


def _refuse_unknown_stage(name: str, given: Given | None) -> None:
    try:
        up_to(name)
    except RecipeError as error:
        where = f"{given.where}: " if given else ""
        raise RecipeError(f"{where}until: {without_stop(error)}.") from None


def _problem(line: str, variants: Given, names: list[str], document: Document) -> str:
    """Return a problem of variants' recipes with its place. What all have is the recipe's own."""
    if len(names) == len(document.variants) > 1:
        return f"{variants.where}: every variant: {line}"
    first = variants.value[names[0]].where
    those = ", ".join(f"'{name}'" for name in names)
    return f"{first}: variant{'s' if len(names) > 1 else ''} {those}: {line}"


def _several_stores(variants: list[Variant]) -> list[str]:
    roots = sorted({each.loaded.recipe.store.root.rstrip("/") for each in variants})
    return roots if len(roots) > 1 else []
