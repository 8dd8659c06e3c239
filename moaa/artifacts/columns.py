"""Every table of every artifact: its Parquet columns, and the fields of its rows.

A table's file holds the column `id`, the columns declared here, and `row`: the whole row as JSON
text. The columns are copies for filtering; `row` alone is what moaa reads. docs/data-formats.md is
generated from these declarations: `python -m moaa.artifacts.formats docs/data-formats.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moaa.artifacts.fields import (
    ANSWERED_TURNS,
    CUT_TURNS,
    DETAIL,
    FINISH,
    ID,
    JUDGEMENT,
    MESSAGES,
    PROMPT,
    REASON,
    REFUSED,
    SAMPLES,
    SOURCE,
    TURNS,
    Field,
)

Row = Mapping[str, Any]
ColumnType = Literal["string", "int32", "double", "bool"]


@dataclass(frozen=True, slots=True)
class Column:
    """A Parquet column. `of` computes its value from a row; null if the row lacks what it needs."""

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


def columns_of(kind: str, table: str) -> tuple[Column, ...]:
    """Return the columns of a table beside `id` and `row`; none if it is not declared."""
    return _COLUMNS.get((kind, table), ())


def _copy(name: str, type: ColumnType, about: str) -> Column:
    """A column that holds the field of its own name."""
    return Column(name, type, about, lambda row: row.get(name))


def _count(name: str, of: str, about: str) -> Column:
    """A column that counts the list in a field."""
    return Column(name, "int32", about, lambda row: len(row[of]) if of in row else None)


def _user_turns(row: Row) -> int | None:
    if "messages" not in row:
        return None
    return [message.get("role") for message in row["messages"]].count("user")


def _finish(parts: str) -> Callable[[Row], str | None]:
    """`length` if any part was cut at its token limit, else the last part's reason."""

    def of(row: Row) -> str | None:
        reasons = [part.get("finish_reason") for part in row.get(parts, ())]
        if "length" in reasons:
            return "length"
        return reasons[-1] if reasons else None

    return of


def _left_out(row: Row) -> int | None:
    if "turns" not in row:
        return None
    return sum(len(turn.get("left_out", ())) for turn in row["turns"])


def _verdict(row: Row) -> str | None:
    p = row.get("p")
    return None if p is None else "a" if p > 0.5 else "b" if p < 0.5 else "tie"


def _orders_disagree(row: Row) -> bool | None:
    verdicts = [order.get("verdict") for order in row.get("orders", ())]
    return len(set(verdicts)) == 1 if len(verdicts) == 2 else None


# -- columns that several tables share

_source = _copy("source", "string", "Name of the prompt's source in the recipe.")
_turns = _count("turns", "turns", "Number of user turns.")
_user_messages = Column("turns", "int32", "Number of user turns.", _user_turns)
_reason = _copy("reason", "string", "Why the row was rejected.")
_judgement = (
    _copy("a", "int32", "Index of answer *a*."),
    _copy("b", "int32", "Index of answer *b*."),
    _copy(
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


def _prompts(name: str, about: str) -> Table:
    return Table("prompts", name, about, (_source, _turns), PROMPT, "table[table.turns > 1]")


def _rejected(kind: str, about: str, *row: Field) -> Table:
    """The table of a stage's rejected rows: its input row, with the reason."""
    turns = _turns if TURNS in row else _user_messages
    return Table(
        kind,
        "rejected",
        about,
        (_source, turns, _reason),
        (*row, REASON, DETAIL),
        "table.reason.value_counts()",
    )


TABLES = (
    _prompts(
        "sft",
        "Prompts that the mixture answers. With `generate.source: original` a row also has "
        "`answers`: the data set's own, one for each turn.",
    ),
    _prompts("preference", "Prompts that the tuned model answers, for preferences."),
    _prompts("evaluation", "Prompts of the evaluation."),
    Table(
        "prompts",
        "rejected",
        "Prompts that were left out: empty, too long, repeated, or near to the evaluation.",
        (
            _source,
            _copy("set", "string", "`sft`, `preference` or `evaluation`."),
            _reason,
        ),
        (
            ID,
            SOURCE,
            Field("set", "text", "The set that it was read for."),
            REASON,
            DETAIL,
            Field("text", "text", "The first 500 characters of its turns."),
        ),
        'table.groupby(["set", "reason"]).size()',
    ),
    Table(
        "sft-data",
        "data",
        "Conversations answered by the mixture: what SFT trains on.",
        (
            _source,
            _turns,
            Column(
                "finish_reason",
                "string",
                "`length` if any answer was cut at `max_tokens`, else that of the last answer.",
                _finish("turns"),
            ),
            Column("left_out", "int32", "Proposals that are missing, over all turns.", _left_out),
        ),
        (ID, SOURCE, MESSAGES, ANSWERED_TURNS),
        'table[table.finish_reason == "length"]',
    ),
    _rejected("sft-data", "Prompts that the mixture could not answer.", *PROMPT),
    Table(
        "samples",
        "data",
        "The tuned model's own answers to each prompt.",
        (
            _source,
            _user_messages,
            _count("samples", "samples", "Number of different answers."),
            Column(
                "finish_reason",
                "string",
                "`length` if any answer was cut at `max_tokens`, else that of the last answer.",
                _finish("samples"),
            ),
        ),
        (ID, SOURCE, MESSAGES, SAMPLES, CUT_TURNS),
        "table[table.samples < 5]",
    ),
    _rejected("samples", "Prompts without two different answers.", *PROMPT),
    Table(
        "preferences",
        "data",
        "Preference pairs: what DPO trains on.",
        (
            _source,
            _user_messages,
            _copy("chosen_index", "int32", "Index of the best answer among the samples."),
            _copy("rejected_index", "int32", "Index of the worst answer."),
            _copy("chosen_cut", "bool", "Whether the best answer was cut at `max_tokens`."),
            _copy("rejected_cut", "bool", "Whether the worst answer was cut."),
            _copy("margin", "double", "Soft wins between the two, from 0 to n-1."),
        ),
        (
            ID,
            SOURCE,
            MESSAGES,
            Field("chosen", "text", "The best answer."),
            Field("rejected", "text", "The worst answer."),
            Field("chosen_cut", "true or false", "Whether the best was cut at `max_tokens`."),
            Field("rejected_cut", "true or false", "Whether the worst was cut."),
            Field("chosen_index", "whole number", "Its index among the samples."),
            Field("rejected_index", "whole number", "Its index among the samples."),
            Field("margin", "number", "Soft wins between the two, from 0 to n-1."),
            Field(
                "wins",
                "list of numbers",
                "Soft wins of each sample: the sum of its `p` over the others. From scores, `p` "
                "is 1 / (1 + exp(other - own)); 0 without a score.",
            ),
        ),
        "table[table.margin > 1]",
    ),
    Table(
        "preferences",
        "judgements",
        "Every judged pair of samples.",
        _judgement,
        (ID, *JUDGEMENT),
        "table.disagree.mean()",
    ),
    Table(
        "preferences",
        "scores",
        "The scores of every answer to a prompt, from a labeller that scores: `reward`, `armorm`, "
        "`random`.",
        (_count("answers", "scores", "Number of answers."),
         _count("refused", "refused", "Answers without a score.")),
        (
            ID,
            Field("scores", "list of numbers or nulls", "The score of each sample."),
            REFUSED,
        ),
        "table[table.refused > 0]",
    ),
    _rejected(
        "preferences", "Prompts whose answers could not be judged.",
        ID, SOURCE, MESSAGES, SAMPLES, CUT_TURNS,
    ),
    Table(
        "scores",
        "answers",
        "The answers that were compared.",
        (
            _copy("model", "string", "`base`, `sft` or `dpo`."),
            _copy("tokens", "int32", "Tokens of the answer."),
            _copy("finish_reason", "string", "`length` if it was cut at `max_tokens`."),
        ),
        (
            ID,
            MESSAGES,
            Field("model", "text", "`base`, `sft` or `dpo`."),
            Field("text", "text", "The answer."),
            Field("tokens", "whole number", "Tokens of the answer, as the server counts them."),
            FINISH,
        ),
        'table.groupby("model").tokens.mean()',
    ),
    Table(
        "scores",
        "judgements",
        "Each tuned model's answer (*a*, index 0) judged against the base's (*b*, index 1).",
        (
            _copy("model_a", "string", "`sft` or `dpo`."),
            _copy("model_b", "string", "`base`."),
            *_judgement,
        ),
        (
            ID,
            Field("model_a", "text", "The model that wrote *a*."),
            Field("model_b", "text", "The model that wrote *b*."),
            *JUDGEMENT,
        ),
        'table.groupby("model_a").p.mean()',
    ),
    _rejected("scores", "Prompts that could not be answered or judged.", *PROMPT),
)  # fmt: skip
"""Every table, in the order of the stages. An artifact of kind `model` has none."""

_COLUMNS = {(table.kind, table.name): table.columns for table in TABLES}
