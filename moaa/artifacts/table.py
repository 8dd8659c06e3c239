"""The declaration of an artifact's table: its Parquet columns and the fields of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from moaa.artifacts.fields import DETAIL, REASON, TURNS, Field

Row = dict[str, Any]
"""A row of a table, as its JSON line holds it."""
ColumnType = Literal["string", "int32", "double", "bool"]


@dataclass(frozen=True, slots=True)
class Column:
    """A Parquet column. `of` computes its value from a row;
    null if the row lacks a field it needs."""

    name: str
    type: ColumnType
    about: str
    of: Callable[[Row], Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of an artifact of this kind."""

    kind: str
    name: str
    about: str
    columns: tuple[Column, ...]
    fields: tuple[Field, ...]
    example: str = field(default="")
    """A line of pandas that filters the table, for the documentation."""


def copied(name: str, type: ColumnType, about: str) -> Column:
    """Return a column that copies the field of the same name."""
    return Column(name, type, about, lambda row: row.get(name))


def counted(name: str, of: str, about: str) -> Column:
    """Return a column with the length of the list in a field."""
    return Column(name, "int32", about, lambda row: len(row[of]) if of in row else None)


def _user_turns(row: Row) -> int | None:
    if "messages" not in row:
        return None
    return [message.get("role") for message in row["messages"]].count("user")


def finish_of(parts: str) -> Callable[[Row], str | None]:
    """Return a function of a row: `length` if any part was cut, else the last part's reason."""

    def of(row: Row) -> str | None:
        reasons = [part.get("finish_reason") for part in row.get(parts, ())]
        if "length" in reasons:
            return "length"
        return reasons[-1] if reasons else None

    return of


def left_out_of(row: Row) -> int | None:
    """Return how many proposals are missing over all turns; null for a row without turns."""
    if "turns" not in row:
        return None
    return sum(len(turn.get("left_out", ())) for turn in row["turns"])


def _verdict(row: Row) -> str | None:
    p = row.get("p")
    return None if p is None else "a" if p > 0.5 else "b" if p < 0.5 else "tie"


def _orders_disagree(row: Row) -> bool | None:
    first = [order.get("p") for order in row.get("orders", ())]
    if len(first) != 2 or None in first:
        return None
    return bool(min(first) > 0.5 or max(first) < 0.5)


# -- columns that several tables share

SOURCE_COLUMN = copied("source", "string", "Name of the prompt's source in the recipe.")
TURNS_COLUMN = counted("turns", "turns", "Number of user turns.")
USER_TURNS_COLUMN = Column("turns", "int32", "Number of user turns.", _user_turns)
REASON_COLUMN = copied("reason", "string", "Why the row was rejected.")
BENCHMARK_COLUMN = copied("benchmark", "string", "Its name in `evaluate.benchmarks`.")
JUDGEMENT_COLUMNS = (
    copied("a", "int32", "Index of answer *a*."),
    copied("b", "int32", "Index of answer *b*."),
    copied(
        "p",
        "double",
        "Probability that *a* is better, mean of both orders; null unless both were judged.",
    ),
    Column("verdict", "string", "`a`, `b` or `tie`: which answer `p` prefers.", _verdict),
    Column(
        "disagree",
        "bool",
        "Whether the two orders prefer different answers; null unless both were judged.",
        _orders_disagree,
    ),
)


def rejected(kind: str, about: str, *row: Field) -> Table:
    """Return the table of a stage's rejected rows: the input row, with the reason."""
    turns = TURNS_COLUMN if TURNS in row else USER_TURNS_COLUMN
    return Table(
        kind,
        "rejected",
        about,
        (SOURCE_COLUMN, turns, REASON_COLUMN),
        (*row, REASON, DETAIL),
        "table.reason.value_counts()",
    )
