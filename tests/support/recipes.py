"""A small recipe for tests of the reader, and what the reader says of a changed one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from moaa.errors import RecipeError
from moaa.recipe.load import load_file, load_text

SMALL = """\
name: small
store: {root: s3://bucket/small}
models:
  m: {source: some/model}
  other: {source: some/other}
target: m
prompts:
  sft: [{source: a.jsonl, limit: 10}]
  preference: [{source: b.jsonl, limit: 10}]
  evaluation: [{source: c.jsonl, limit: 10}]
generate:
  mixture:
    proposers:
      - {name: one, model: m}
      - {name: two, model: other}
    aggregator: {model: m}
label:
  judge:
    proposers: [{model: m}]
    aggregator: {model: m}
dpo:
  beta: 0.05
"""


Write = Callable[..., str]


def writer(folder: Path) -> Write:
    """Return a function that writes a recipe into `folder` and returns the file's name."""

    def write(text: str, name: str = "recipe.yaml") -> str:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    return write


def refused(recipe: str | Path, *sets: str) -> list[str]:
    """Return the lines of the error for a recipe in a file."""
    with pytest.raises(RecipeError) as caught:
        load_file(recipe, sets)
    return str(caught.value).splitlines()


def refused_text(text: str, *sets: str) -> list[str]:
    """Return the lines of the error for a recipe given as text."""
    with pytest.raises(RecipeError) as caught:
        load_text(text, sets)
    return str(caught.value).splitlines()
