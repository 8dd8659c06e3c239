"""The instructions given to models: text files beside this module. A recipe may replace each.

aggregate.txt   how the aggregator writes one answer from several (no placeholders: the answers
                follow it)
criteria.txt    which three criteria fit this query and these two answers
assess.txt      how a proposer of the judge assesses both answers
verdict.txt     how the aggregator of the judge decides between them

The judge's placeholders come with their tags: `$answer_a` becomes `<answer_a 3f9c21ab>`, the
answer, `</answer_a 3f9c21ab>`. So every template has them, and no text between them can end its
own.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from string import Template

from moaa.errors import RecipeError


@cache
def text(name: str) -> str:
    """The built-in instruction `name`, without the newline at the end of its file."""
    return resources.files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8").strip()


def fill(field: str, template: str, values: dict[str, str]) -> str:
    """`template` with each `$placeholder` replaced by its value. A `$` in a value stays as it is.

    `field` is the recipe's name of the template. Raises `RecipeError` unless it uses exactly the
    placeholders given.
    """
    _check(field, template, tuple(values))
    return Template(template).substitute(values)


@cache
def _check(field: str, template: str, names: tuple[str, ...]) -> None:
    parsed = Template(template)
    legal = ", ".join(f"${name}" for name in names)
    if not parsed.is_valid():
        raise RecipeError(
            f"{field} has a '$' that starts no placeholder. Write '$$' for a dollar sign; "
            f"placeholders: {legal}."
        )
    used = parsed.get_identifiers()
    if unknown := [name for name in used if name not in names]:
        raise RecipeError(
            f"{field} uses ${unknown[0]}, which it is not given. Write '$$' for a dollar sign; "
            f"placeholders: {legal}."
        )
    if unused := [name for name in names if name not in used]:
        raise RecipeError(
            f"{field} does not use ${unused[0]}: the model would not see it. It needs all of "
            f"{legal}."
        )
