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

from pydantic import Field, StringConstraints, ValidationError

from moaa.errors import RecipeError
from moaa.recipe import read
from moaa.recipe.document import Part
from moaa.recipe.files import by_name
from moaa.recipe.load import Loaded, load_file

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?$")]
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
    document = _document(path)
    recipe = by_name(document.recipe, path.parent)
    problems, variants = [], []
    for name, fields in document.variants.items():
        sets = (*document.sets, *fields.sets)
        try:
            loaded = load_file(recipe, sets)
        except RecipeError as error:
            problems.append(f"variant '{name}': {error}")
            continue
        run_id = f"{document.name}-{name}"
        variants.append(Variant(name, fields.about, sets, loaded, run_id))
    if roots := _several_stores(variants):
        problems.append(
            f"the variants keep their results in different places ({', '.join(roots)}), so that "
            "they share no stage. Set store.root for all of them: use `set` next to `variants`."
        )
    if problems:
        raise RecipeError(f"{path}: " + "\n".join(problems))
    return Sweep(
        document.name,
        recipe,
        document.until,
        document.at_once,
        document.budget_usd,
        tuple(variants),
    )


def _document(path: Path) -> Document:
    errors: list[str] = []
    try:
        given = read.read(path.read_text(encoding="utf-8"), path.name, errors)
    except FileNotFoundError:
        ours = ", ".join(sorted(each.stem for each in SHIPPED.glob("*.yaml")))
        raise RecipeError(
            f"{path} does not exist. Give the path of a sweep's file, or the name of one that "
            f"comes with moaa: {ours}."
        ) from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} cannot be read: it is not text in UTF-8 ({error}).") from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from None
    if errors:
        raise RecipeError("\n".join(errors))
    try:
        return Document.model_validate(read.plain(given))
    except ValidationError as error:
        raise RecipeError(
            "\n".join(
                f"{path.name}: {'.'.join(map(str, each['loc'])) or 'the sweep'}: {each['msg']}"
                for each in error.errors()
            )
        ) from None


def _several_stores(variants: list[Variant]) -> list[str]:
    roots = sorted({each.loaded.recipe.store.root.rstrip("/") for each in variants})
    return roots if len(roots) > 1 else []
