"""Every table of every artifact: its Parquet columns and the fields of its rows.

A table's file has the column `id`, the columns declared here, and `row`: the whole row as JSON
text. The columns are copies for filtering; moaa itself reads only `row`. docs/data-formats.md is
generated from these declarations: `python -m moaa.artifacts.formats docs/data-formats.md`.
"""

from __future__ import annotations

from moaa.artifacts.fields import (
    ANSWERED_TURNS,
    CUT_TURNS,
    DETAIL,
    ID,
    JUDGEMENT,
    MESSAGES,
    PROMPT,
    REASON,
    REFUSED,
    SAMPLES,
    SOURCE,
    Field,
)
from moaa.artifacts.score_tables import SCORE_TABLES
from moaa.artifacts.table import (
    JUDGEMENT_COLUMNS,
    REASON_COLUMN,
    SOURCE_COLUMN,
    TURNS_COLUMN,
    USER_TURNS_COLUMN,
    Column,
    Table,
    copied,
    counted,
    finish_of,
    left_out_of,
    rejected,
)


def columns_of(kind: str, table: str) -> tuple[Column, ...]:
    """Return the columns of a table besides `id` and `row`; none if it is not declared."""
    return _COLUMNS.get((kind, table), ())


def _prompts(name: str, about: str) -> Table:
    return Table(
        "prompts", name, about, (SOURCE_COLUMN, TURNS_COLUMN), PROMPT, "table[table.turns > 1]"
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
            SOURCE_COLUMN,
            copied("set", "string", "`sft`, `preference` or `evaluation`."),
            REASON_COLUMN,
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
            SOURCE_COLUMN,
            TURNS_COLUMN,
            Column(
                "finish_reason",
                "string",
                "`length` if any answer was cut at `max_tokens`, else that of the last answer.",
                finish_of("turns"),
            ),
            Column("left_out", "int32", "Proposals that are missing, over all turns.", left_out_of),
        ),
        (ID, SOURCE, MESSAGES, ANSWERED_TURNS),
        'table[table.finish_reason == "length"]',
    ),
    rejected("sft-data", "Prompts that the mixture could not answer.", *PROMPT),
    Table(
        "samples",
        "data",
        "The tuned model's own answers to each prompt.",
        (
            SOURCE_COLUMN,
            USER_TURNS_COLUMN,
            counted("samples", "samples", "Number of different answers."),
            Column(
                "finish_reason",
                "string",
                "`length` if any answer was cut at `max_tokens`, else that of the last answer.",
                finish_of("samples"),
            ),
        ),
        (ID, SOURCE, MESSAGES, SAMPLES, CUT_TURNS),
        "table[table.samples < 5]",
    ),
    rejected("samples", "Prompts without two different answers.", *PROMPT),
    Table(
        "preferences",
        "data",
        "Preference pairs: what DPO trains on.",
        (
            SOURCE_COLUMN,
            USER_TURNS_COLUMN,
            copied("chosen_index", "int32", "Index of the best answer among the samples."),
            copied("rejected_index", "int32", "Index of the worst answer."),
            copied("chosen_cut", "bool", "Whether the best answer was cut at `max_tokens`."),
            copied("rejected_cut", "bool", "Whether the worst answer was cut."),
            copied("margin", "double", "Soft wins between the two, from 0 to n-1."),
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
        JUDGEMENT_COLUMNS,
        (ID, *JUDGEMENT),
        "table.disagree.mean()",
    ),
    Table(
        "preferences",
        "scores",
        "The scores of every answer to a prompt, from a labeller that scores: `reward`, `armorm`, "
        "`random`.",
        (counted("answers", "scores", "Number of answers."),
         counted("refused", "refused", "Answers without a score.")),
        (
            ID,
            Field("scores", "list of numbers or nulls", "The score of each sample."),
            REFUSED,
        ),
        "table[table.refused > 0]",
    ),
    rejected(
        "preferences", "Prompts whose answers could not be judged.",
        ID, SOURCE, MESSAGES, SAMPLES, CUT_TURNS,
    ),
    *SCORE_TABLES,
)  # fmt: skip
"""Every table, in the order of the stages. An artifact of kind `model` has none."""

FEEDBACK = (
    Field("id", "text", "The request's id, as the client got it in `x-request-id`."),
    Field("time", "text", "When it was asked or rated, ISO 8601."),
    Field("key", "text", "The name of the client's key."),
    Field("model", "text", "The name that was asked for."),
    Field("revision", "text or null", "The version that answered."),
    Field("messages", "list of objects", "The question: each message's `role` and `content`."),
    Field("answer", "text", "The answer."),
    Field("finish_reason", "text or null", "`length` if the answer was cut."),
    Field("rating", "whole number or null", "-1, 0 or 1; null if nobody rated it."),
    Field("comment", "text or null", "What the client wrote about it."),
    Field("masked", "object", "How many of each kind were masked, by kind."),
)
"""The fields of a row that a gateway keeps. A late rating is a row without the answer's fields."""

_COLUMNS = {(table.kind, table.name): table.columns for table in TABLES}
