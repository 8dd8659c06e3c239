"""Rows of benchmarks' data, checked once while they are read.

class Pair(DataRow):               the columns that a benchmark needs, with their types
    question: str

pair = read(Pair, row, "judge_bench", "Its rows are those of ScalerLab/JudgeBench.")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from moaa.errors import RecipeError

READ_FROM: Final = "read_from"
"""The key under which each row of a benchmark's data names its source."""
ROW_NUMBER: Final = "read_row"
"""The key under which it has its number in that source, from 1."""
_MOST_SHOWN: Final = 60
"""At most this many characters of a wrong value are shown."""


class DataRow(BaseModel):
    """A row of data, or an object in it. Columns that the class does not name are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Return the names of its columns, as the data have them."""
        return tuple(cls.model_fields)


R = TypeVar("R", bound=DataRow)
Name = int | str
"""What names a question. A number and its text are the same name."""


def read(kind: type[R], row: Mapping[str, Any], benchmark: str, hint: str) -> R:
    """Return the row with the types of `kind`.

    Raises RecipeError: which row, what was given, what is expected, and the hint.
    """
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        raise refusal(row, benchmark, "; ".join(map(_problem, error.errors())), hint) from None


def refusal(row: Mapping[str, Any], benchmark: str, problem: str, hint: str) -> RecipeError:
    """Return the error about a row that is not one of this benchmark."""
    where = f"row {row[ROW_NUMBER]} of {row[READ_FROM]}" if ROW_NUMBER in row else "a row"
    return RecipeError(f"evaluate.benchmarks.{benchmark}: {where}: {problem}. {hint}")


def _problem(error: Any) -> str:
    column = ".".join(map(str, error["loc"])) or "the row"
    if error["type"] == "missing":
        return f"it has no {column}"
    shown = repr(error["input"])
    if len(shown) > _MOST_SHOWN:
        shown = f"{shown[:_MOST_SHOWN]}…"
    return f"{column} is {shown}: {error['msg'][0].lower()}{error['msg'][1:]}"
