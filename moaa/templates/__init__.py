"""The instructions for models: text files in this folder. A recipe may replace each of them.

aggregate.txt   how the aggregator writes one answer from several (no placeholders: the answers
                    follow it)
criteria.txt    which three criteria fit this query and these two answers
assess.txt      how a proposer of the judge assesses both answers
verdict.txt     how the aggregator of the judge decides between them

The judge's placeholders come with their tags: `$answer_a` becomes `<answer_a 3f9c21ab>`, the
answer, `</answer_a 3f9c21ab>`. So every template has the tags, and no text between them can close
its own tag.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from string import Template

from moaa.errors import RecipeError


@cache
def text(name: str) -> str:
    """Return the built-in instruction `name`, without the newline at the end of its file."""
    return resources.files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8").strip()


def fill(field: str, template: str, values: dict[str, str]) -> str:
    """Return `template` with each `$placeholder` replaced by its value. A `$` in a value stays as
    it is.

    `field` is the recipe's name of the template. Raises `RecipeError` unless it uses exactly the
    given placeholders.
    """
    _check(field, template, tuple(values))
    return Template(template).substitute(values)


@cache
def _check(field: str, template: str, names: tuple[str, ...]) -> None:
    parsed = Template(template)
    legal = ", ".join(f"${name}" for name in names)
    if not parsed.is_valid():
        raise RecipeError(
            f"{field} has a '$' that does not start a placeholder. Write '$$' for a dollar sign; "
            f"placeholders: {legal}."
        )
    used = parsed.get_identifiers()
    if unknown := [name for name in used if name not in names]:
        raise RecipeError(
            f"{field} uses ${unknown[0]}, which has no value here. Write '$$' for a dollar sign; "
            f"placeholders: {legal}."
        )
    if unused := [name for name in names if name not in used]:
        raise RecipeError(
            f"{field} does not use ${unused[0]}: the model would not see it. It needs all of "
            f"{legal}."
        )
