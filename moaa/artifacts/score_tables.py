"""The tables of the stages evaluate and gate: scores, answers, judgements, the decision."""

from __future__ import annotations

from moaa.artifacts.fields import (
    DETAIL,
    FINISH,
    ID,
    JUDGEMENT,
    MESSAGES,
    MODEL,
    PROPOSER,
    QUESTION_ID,
    REASON,
    Field,
)
from moaa.artifacts.table import (
    BENCHMARK_COLUMN,
    JUDGEMENT_COLUMNS,
    REASON_COLUMN,
    Column,
    Row,
    Table,
    copied,
)

ABOUT = (
    QUESTION_ID,
    Field("benchmark", "text", "Its name in `evaluate.benchmarks`."),
    Field("group", "text", "Category or source of the question."),
)
"""The fields of every row about a benchmark's question."""
MODEL_A = copied("model_a", "string", "The contestant that is measured.")
MODEL_B = copied("model_b", "string", "The other contestant.")

ENTRANT = copied("entrant", "string", "Who is measured.")


def _mean_rating(row: Row) -> float | None:
    ratings = [each["rating"] for each in row.get("ratings", ())]
    return sum(ratings) / len(ratings) if ratings else None


def _batch(kind: str, about: str, record: str) -> Table:
    return Table(
        kind,
        "data",
        about,
        (),
        (QUESTION_ID, Field("record", "object", record)),
        'rows.record.str["row"]',
    )


SCORE_TABLES = (
    Table(
        "scores",
        "scores",
        "Every number of every benchmark, with its interval.",
        (
            BENCHMARK_COLUMN,
            copied("entrant", "string", "Who was measured: a contestant, or a judge."),
            copied("against", "string", "The other contestant or the baseline; empty if none."),
            copied("metric", "string", "What the number is."),
            copied("subset", "string", "The part of the questions; empty: all of them."),
            copied("value", "double", "The number."),
            copied("low", "double", "The lower end of its interval."),
            copied("high", "double", "The upper end."),
            copied("n", "int32", "How many items it rests on."),
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
        'table[table.metric == "win rate"].set_index("entrant").value',
    ),
    Table(
        "scores",
        "answers",
        "The answers of all contestants to the questions of all benchmarks.",
        (
            BENCHMARK_COLUMN,
            copied("model", "string", "The contestant."),
            copied("turn", "int32", "The turn, from 1."),
            copied("tokens", "int32", "Tokens of the answer."),
            copied("finish_reason", "string", "`length` if it was cut at `max_tokens`."),
        ),
        (
            *ABOUT,
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
        "canary",
        "If the recipe publishes: the candidate's greedy answers to a few held-out prompts, token "
        "by token. A version's `canary.json` is made of it.",
        (),
        (
            ID,
            MESSAGES,
            Field("text", "text", "The beginning of the answer."),
            Field(
                "positions",
                "list of objects",
                "At each position the log-probability of the likeliest tokens, by token; the "
                "written one first.",
            ),
        ),
        "table.id",
    ),
    Table(
        "scores",
        "judgements",
        "Pairs of answers: that of `model_a` (*a*, index 0) against that of `model_b` (*b*, "
        "index 1).",
        (BENCHMARK_COLUMN, MODEL_A, MODEL_B, *JUDGEMENT_COLUMNS),
        (
            *ABOUT,
            Field("model_a", "text", "The contestant that wrote *a*."),
            Field("model_b", "text", "The contestant that wrote *b*."),
            *JUDGEMENT,
        ),
        'table.groupby(["benchmark", "model_a", "model_b"]).p.mean()',
    ),
    Table(
        "scores",
        "verdicts",
        "Given pairs of answers, of which one is known to be better, as measured judges see them.",
        (BENCHMARK_COLUMN, ENTRANT, *JUDGEMENT_COLUMNS),
        (
            *ABOUT,
            Field("entrant", "text", "The judge that is measured."),
            *JUDGEMENT,
            Field(
                "injected",
                "object or null",
                "`p`, `p_ab` and `p_ba` with text in the worse answer that asks for the verdict.",
            ),
        ),
        'table.groupby(["benchmark", "entrant"]).disagree.mean()',
    ),
    Table(
        "scores",
        "ratings",
        "Single answers, rated by the judge.",
        (
            BENCHMARK_COLUMN,
            ENTRANT,
            Column("rating", "double", "Mean rating of the answers that have one.", _mean_rating),
        ),
        (
            *ABOUT,
            Field("entrant", "text", "The contestant that is measured."),
            Field(
                "ratings",
                "list of objects",
                "The ratings, one for each turn.",
                (
                    Field("turn", "whole number", "The turn, from 1."),
                    Field("rating", "number", "From 1 to 10."),
                    Field("text", "text", "What the judge wrote."),
                    Field(
                        "assessments",
                        "list of objects",
                        "What each judging proposer wrote; none if one model judges alone.",
                        (PROPOSER, MODEL, Field("text", "text", "The assessment."), FINISH),
                    ),
                ),
            ),
            Field(
                "lost",
                "list of objects",
                "The turns without a rating.",
                (
                    Field("turn", "whole number", "The turn, from 1."),
                    REASON,
                    DETAIL,
                ),
            ),
        ),
        'table.groupby(["benchmark", "entrant"]).rating.mean()',
    ),
    Table(
        "scores",
        "marks",
        "Single answers, marked by a program.",
        (BENCHMARK_COLUMN, ENTRANT),
        (
            *ABOUT,
            Field("entrant", "text", "The contestant that is measured."),
            Field(
                "marks",
                "list of objects",
                "What each metric says of the answer.",
                (
                    Field("metric", "text", "The metric."),
                    Field("value", "number", "From 0 to 1: the mean of its verdicts."),
                    Field(
                        "verdicts", "list of true or false", "Each verdict, if there are several."
                    ),
                ),
            ),
            Field("lost", "list of objects", "Empty: a program marks every answer."),
            Field(
                "outcome",
                "text",
                "HumanEval: `passed`, or what kept the answer's program from it. Else empty.",
            ),
        ),
        'table.groupby(["benchmark", "entrant"]).size()',
    ),
    Table(
        "scores",
        "rejected",
        "Answers and judgements that were lost.",
        (
            BENCHMARK_COLUMN,
            copied("what", "string", "`answers` or `judgements`."),
            copied("who", "string", "The contestant, or `dpo against base`."),
            REASON_COLUMN,
        ),
        (
            *ABOUT,
            Field("what", "text", "`answers` or `judgements`."),
            Field("who", "text", "The contestant, or `dpo against base`."),
            REASON,
            DETAIL,
        ),
        "table.reason.value_counts()",
    ),
    Table(
        "decision",
        "data",
        "What each rule of the gate found.",
        (
            copied("outcome", "string", "`pass`, `fail` or `undecided`."),
            copied("limit", "double", "What the bound is compared with."),
        ),
        (
            Field("id", "text", "The rule."),
            Field("rule", "text", "The rule."),
            Field("outcome", "text", "`pass`, `fail` or `undecided`."),
            Field("about", "text", "What it found, as a sentence."),
            Field(
                "estimate",
                "object or null",
                "The number: `value`, `low`, `high`, `n`, `unit`; each end of its interval holds "
                "at 95 %.",
            ),
            Field("limit", "number or null", "What the bound is compared with."),
            Field(
                "needed", "whole number or null", "If undecided: how many items would decide it."
            ),
        ),
        'table[table.outcome != "pass"]',
    ),
    _batch(
        "answers",
        "The answers of one contestant to all questions of one benchmark. The manifest's "
        "`facts.who` names it.",
        "`row` with `answers`, one for each turn, or `rejected` with `reason` and `detail`.",
    ),
    _batch(
        "judgements",
        "The judgements of one match of a benchmark. The manifest's `facts.who` names the one or "
        "two that were judged.",
        "`row` with the judgement, or `rejected` with `reason` and `detail`.",
    ),
)
