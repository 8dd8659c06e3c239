"""The demo with changes, and two commits of the hub."""

from __future__ import annotations

from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from tests.support.paths import DEMO

FIRST, SECOND = "a" * 40, "b" * 40


def recipe(*sets: str) -> Recipe:
    return load_file(DEMO, sets).recipe
