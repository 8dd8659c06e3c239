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
_benchmark = _copy("benchmark", "string", "Its name in `evaluate.benchmarks`.")
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
        "scores",
        "Every number of every benchmark, with its interval.",
        (
            _benchmark,
            _copy("entrant", "string", "Who was measured: a contestant, or a judge."),
            _copy("against", "string", "The other contestant or the baseline; empty if none."),
            _copy("metric", "string", "What the number is."),
            _copy("subset", "string", "The part of the questions; empty: all of them."),
            _copy("value", "double", "The number."),
            _copy("low", "double", "The lower end of its interval."),
            _copy("high", "double", "The upper end."),
            _copy("n", "int32", "How many items it rests on."),
        ),
        (
            Field("id", "text", "The benchmark and a number."),
            Field("benchmark", "text", "Its name in `evaluate.benchmarks`."),
            Field("entrant", "text", "Who was measured: a contestant, or a judge."),
            Field("against", "text", "The other contestant or the baseline; empty if none."),
            Field("metric", "text", "What the number is."),
            Field("subset", "text", "The part of the questions; empty: all of them."),
            Field("main", "true or false", "Whether it stands in the table of all benchmarks."),
            Field("value", "number", "The number."),
            Field("low", "number", "The lower end of its interval."),
            Field("high", "number", "The upper end."),
            Field("n", "whole number", "How many items it rests on."),
            Field("unit", "text", "`share`, `rating`, …: what the value is."),
            Field("level", "number", "How often such an interval covers the truth."),
            Field("about", "object", "More numbers, by name."),
        ),
        "table[table.metric == 'win rate'].set_index('entrant').value",
    ),
    Table(
        "scores",
        "answers",
        "The answers of all contestants to the questions of all benchmarks.",
        (
            _benchmark,
            _copy("model", "string", "The contestant."),
            _copy("turn", "int32", "The turn, from 1."),
            _copy("tokens", "int32", "Tokens of the answer."),
            _copy("finish_reason", "string", "`length` if it was cut at `max_tokens`."),
        ),
        (
            ID,
            Field("benchmark", "text", "Its name in `evaluate.benchmarks`."),
            Field("group", "text", "Category or source of the question."),
            MESSAGES,
            Field("model", "text", "The contestant: `base`, `sft`, `dpo`, `mixture`, a model."),
            Field("turn", "whole number", "The turn, from 1."),
            Field("text", "text", "The answer."),
            Field("tokens", "whole number", "Tokens of the answer, as the server counts them."),
            FINISH,
        ),
        'table.groupby(["benchmark", "model"]).tokens.mean()',
    ),
    Table(
        "scores",
        "judgements",
        "Every judgement. Of pairs: `model_a` (answer *a*, index 0) against `model_b` (*b*, index "
        "1). Benchmarks that rate single answers have `ratings` instead of `p` and `orders`.",
        (
            _benchmark,
            _copy("model_a", "string", "The contestant or judge that is measured."),
            _copy("model_b", "string", "The other contestant; null if there is none."),
            _copy("rating", "double", "Mean rating; null for pairs."),
            *_judgement,
        ),
        (
            ID,
            Field("benchmark", "text", "Its name in `evaluate.benchmarks`."),
            Field("group", "text", "Category or source of the question."),
            Field("model_a", "text", "The contestant or judge that is measured."),
            Field("model_b", "text", "The other contestant; missing if there is none."),
            *JUDGEMENT,
        ),
        'table.groupby(["benchmark", "model_a"]).p.mean()',
    ),
    _rejected(
        "scores",
        "Answers and judgements that were lost.",
        ID,
        Field("benchmark", "text", "Its name in `evaluate.benchmarks`."),
        Field("group", "text", "Category or source of the question."),
        Field("what", "text", "`answers` or `judgements`."),
        Field("who", "text", "The contestant, or `dpo against base`."),
    ),
    Table(
        "answers",
        "data",
        "The answers of one contestant, kept for later evaluations.",
        (),
        (
            ID,
            Field("record", "object", "`row` with `answers`, one for each turn; or `rejected`."),
        ),
        "table.id",
    ),
    Table(
        "judgements",
        "data",
        "The judgements of one match, kept for later evaluations.",
        (),
        (ID, Field("record", "object", "`row`: the judgement; or `rejected`.")),
        "table.id",
    ),
)  # fmt: skip
"""Every table, in the order of the stages. An artifact of kind `model` has none."""

_COLUMNS = {(table.kind, table.name): table.columns for table in TABLES}
