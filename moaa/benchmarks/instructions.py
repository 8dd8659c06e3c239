"""Prompts with instructions that a program checks: what IFEval and IFBench share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from moaa.benchmarks.harness import Doc
from moaa.benchmarks.rows import DataRow, Name
from moaa.errors import RecipeError, without_stop


class Instructed(DataRow):  # type: ignore[no-redef]  # pydantic's __init__ has **kwargs
    """A prompt with its instructions, and the arguments of each."""

    key: Name
    prompt: str
    instruction_id_list: tuple[str, ...] = Field(min_length=1)
    kwargs: tuple[dict[str, Any], ...]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        given, needed = len(self.kwargs), len(self.instruction_id_list)
        if given != needed:
            raise ValueError(f"{needed} instructions, but {given} kwargs: each has its own")
        return self


def checked(
    benchmark: str, docs: Sequence[Doc], checkers: Mapping[str, Callable[[str], Any]]
) -> None:
    """Raises RecipeError for an instruction without a checker, or whose arguments are not those of
    its checker: it would count as not followed by any model."""
    for doc in docs:
        for name, kwargs in zip(doc["instruction_id_list"], doc["kwargs"], strict=True):
            where = f"evaluate.benchmarks.{benchmark}: question {doc['key']}: instruction {name!r}"
            if name not in checkers:
                raise RecipeError(
                    f"{where} is unknown here. Give the published questions, or install the "
                    "version of the checkers that knows it."
                )
            try:
                checkers[name](name).build_description(**kwargs)
            except Exception as error:
                raise RecipeError(
                    f"{where} cannot be checked with {kwargs}: {type(error).__name__}: "
                    f"{without_stop(error)}. Give the published questions."
                ) from error
