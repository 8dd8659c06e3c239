"""The text of an error within a longer sentence."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from moaa.errors import StoreError, without_stop
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("said", "expected"),
    [("Start it.", "Start it"), ("no stop", "no stop"), ("a\n  b. ", "a\n  b"), ("1.5", "1.5")],
)
def test_a_final_stop_is_left_out(said: str, expected: str) -> None:
    assert without_stop(StoreError(said)) == expected


def test_no_caught_error_stands_with_its_stop_within_a_sentence() -> None:
    """`{error}.` would end in two stops, `({error})` in a stop and a bracket."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "moaa").rglob("*.py"))
        for line in _within_sentences(path)
    ]
    assert found == []


def _within_sentences(path: Path) -> Iterator[int]:
    """Yield the lines of f-strings that go on after an error that was caught."""
    for caught in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(caught, ast.ExceptHandler):
            continue
        for text in ast.walk(caught):
            values = text.values if isinstance(text, ast.JoinedStr) else []
            for error, after in pairwise(values):
                if (
                    isinstance(error, ast.FormattedValue)
                    and error.conversion == -1
                    and isinstance(error.value, ast.Name)
                    and error.value.id == caught.name
                    and isinstance(after, ast.Constant)
                    and str(after.value).lstrip(" ").startswith((".", ",", ";", ":", "(", ")"))
                ):
                    yield error.lineno
