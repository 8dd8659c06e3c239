"""The small recipe with settings: what is read, or what is said against it."""

from __future__ import annotations

import pytest

from moaa.errors import RecipeError
from moaa.recipe.load import load_text
from moaa.recipe.schema import Recipe
from tests.support.recipes import SMALL


def loaded(*sets: str) -> Recipe:
    return load_text(SMALL, sets).recipe


def refused(*sets: str) -> str:
    with pytest.raises(RecipeError) as error:
        load_text(SMALL, sets)
    return str(error.value)
