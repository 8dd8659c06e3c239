"""docs/recipe.md says what the schema says, and its examples are right."""

from __future__ import annotations

import re

import pytest

from moaa.recipe import Recipe, fields
from moaa.recipe.load import load_file
from moaa.recipe.schema import Judge, Mixture, Model
from tests.support.paths import PAPER, RECIPES, ROOT

PAGE = (ROOT / "docs/recipe.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_schema() -> None:
    written = PAGE.partition(fields.START)[2].partition(fields.END)[0].strip()
    assert written == fields.table().strip(), "run: python -m moaa.recipe.fields docs/recipe.md"


ABLATIONS = [
    line
    for line in PAGE.partition("## Ablations")[2].partition("## Fields")[0].splitlines()
    if line.startswith("| ")
][1:]


@pytest.mark.parametrize("row", ABLATIONS)
def test_every_ablation_is_a_legal_change(row: str) -> None:
    sets = re.findall(r"`([a-z_.]+=[^`]+)`", row)
    assert sets
    before = load_file(PAPER).recipe
    assert load_file(PAPER, sets).recipe != before


def test_examples_of_set_are_legal() -> None:
    examples = re.findall(r"--set '?([a-z][^=`]*=[^'`]+)'?`", PAGE)
    examples.remove("path=value")
    assert len(examples) >= 3
    load_file(PAPER, ['models."qwen-2.5".source=x/y', *examples])


def test_the_recipes_of_the_first_table_are_those_that_are_there() -> None:
    named = set(re.findall(r"^\| \[([a-z-]+\.yaml)\]", PAGE, re.MULTILINE))
    assert named == {path.name for path in RECIPES.glob("*.yaml")}


def test_owners_and_paths_of_fields() -> None:
    assert fields.owner_of(()) is Recipe
    assert (
        fields.owner_of(
            (
                "models",
                "any",
            )
        )
        is Model
    )
    assert fields.owner_of(("label", "judge")) is fields.owner_of(("evaluate", "judge")) is Judge
    assert fields.owner_of(("generate", "mixture")) is Mixture
    assert fields.owner_of(("dpo", "beta")) is None
    assert fields.owner_of(("nosuch",)) is None
    paths = [field.path for field in fields.walk()]
    assert "label.judge.proposers[].sampling.temperature" in paths
    assert "models.*.endpoint.key_env" in paths
    assert len(paths) == len(set(paths))
