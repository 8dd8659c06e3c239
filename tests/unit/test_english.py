"""Plain words in docstrings, comments, messages and documentation, and a docstring for each public
definition."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

FOLDERS = ("moaa", "pipelines", "components")
PAGES = ("*.md", "docs/*.md", "helm/*/README.md")
# Each has a plain word: "at most N", "this many", "until then", "again", "is not", "in progress",
# "depends on".
BANNED = re.compile(
    r"\b(?:so (?:many|few|long|often)(?! (?:as|that))|meanwhile|anew|(?:is|are) none of|none such"
    r"|whoever|under way|be it that|mend(?:s|ed)?|hangs? on)\b"
)
_JOIN = re.compile(r"""["']?\s*\n\s*(?:#:?\s|[fr]{0,2}["'])?""")


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Yield each file's path and text."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def banned(text: str) -> list[str]:
    """Return the banned phrases of a source text, also those that a line break cuts."""
    return BANNED.findall(" ".join(_JOIN.sub(" ", text.lower()).split()))


def undocumented(text: str) -> list[str]:
    """Return the public definitions of a source text that have no docstring."""

    def look(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
        for each in node.body:
            kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            if not isinstance(each, kinds) or each.name.startswith("_"):
                continue
            if ast.get_docstring(each) is None:
                yield prefix + each.name
            if isinstance(each, ast.ClassDef):
                yield from look(each, f"{prefix}{each.name}.")

    return list(look(ast.parse(text), ""))


def test_docstrings_comments_and_messages_have_plain_words() -> None:
    found = {path: words for path, text in sources(*FOLDERS) if (words := banned(text))}
    assert found == {}


def test_the_documentation_has_plain_words() -> None:
    pages = {path.relative_to(ROOT).as_posix(): path for each in PAGES for path in ROOT.glob(each)}
    assert len(pages) > 25
    found = {name: words for name, path in pages.items() if (words := banned(path.read_text()))}
    assert found == {}


def test_every_public_definition_has_a_docstring() -> None:
    found = {path: names for path, text in sources("moaa") if (names := undocumented(text))}
    assert found == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"""So many units a minute."""', ["so many"]),
        ("# it is kept\n# meanwhile", ["meanwhile"]),
        ('raise Error(\n    "the row is none "\n    "of PPE"\n)', ["is none of"]),
        ('"""Keep it so long as the lease lives."""', []),
        ('"""Units a minute, at most as many at once."""', []),
    ],
)
def test_a_banned_phrase_is_found_across_lines(text: str, words: list[str]) -> None:
    assert banned(text) == words


def test_a_definition_without_a_docstring_is_found() -> None:
    text = "class A:\n    '''It has one.'''\n    def b(self): ...\n    def _c(self): ...\n"
    assert undocumented(text) == ["A.b"]
