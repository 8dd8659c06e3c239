"""The fields of artifacts' rows, in the JSON text of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FieldType = Literal[
    "text",
    "text or null",
    "whole number",
    "whole number or null",
    "number",
    "number or null",
    "true or false",
    "object",
    "object or null",
    "list of texts",
    "list of true or false",
    "list of numbers",
    "list of numbers or nulls",
    "list of objects",
]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a row. `fields` are those of an object, or of each object in a list."""

    name: str
    type: FieldType
    about: str
    fields: tuple[Field, ...] = ()


ID = Field("id", "text", "The prompt's id: 16 hex digits of the sha256 of its normalized text.")
QUESTION_ID = Field("id", "text", "The question's id in its benchmark; head to head: the prompt's.")
SOURCE = Field("source", "text", "Name of the prompt's source in the recipe.")
SYSTEM = Field("system", "text or null", "The prompt's own system message.")
TURNS = Field("turns", "list of texts", "The user's turns, in order.")
MESSAGES = Field(
    "messages",
    "list of objects",
    "The conversation, in OpenAI's form.",
    (
        Field("role", "text", "`system`, `user` or `assistant`."),
        Field("content", "text", "What was written."),
    ),
)
FINISH = Field(
    "finish_reason", "text", "`stop`: the model ended by itself; `length`: cut at `max_tokens`."
)
LEFT_OUT = Field(
    "left_out",
    "list of objects",
    "Proposers that gave nothing.",
    (
        Field("name", "text", "The proposer's name in the recipe."),
        Field("layer", "whole number", "Its layer, from 0."),
        Field("reason", "text", "Why, in a few words: `timeout`, `context_length` …"),
    ),
)
REFUSED = Field(
    "refused",
    "list of objects",
    "Answers that could not be scored: neither the best nor the worst.",
    (
        Field("answer", "whole number", "Its index among the samples."),
        Field("reason", "text", "Why: usually `context length`."),
        Field("detail", "text", "What the server said."),
    ),
)
PROPOSER = Field("name", "text", "The proposer's name in the recipe.")
MODEL = Field("model", "text", "Its model's name in the recipe.")
SAMPLES = Field(
    "samples",
    "list of objects",
    "The different answers of the tuned model; equal ones are merged.",
    (
        Field("text", "text", "The answer."),
        Field("count", "whole number", "How often it was given."),
        FINISH,
    ),
)
CUT_TURNS = Field(
    "cut_turns", "whole number", "Earlier answers in `messages` that were cut at `max_tokens`."
)
PROPOSALS = Field(
    "proposals",
    "list of objects",
    "What the proposers wrote, layer by layer.",
    (
        PROPOSER,
        MODEL,
        Field("layer", "whole number", "The layer, from 0."),
        Field("text", "text", "The proposal."),
        FINISH,
    ),
)
ANSWERED_TURNS = Field(
    "turns",
    "list of objects",
    "How each answer came about.",
    (
        PROPOSALS,
        LEFT_OUT,
        Field(
            "answer",
            "text",
            "The answer, as in `messages`: the aggregator's, unless `generate.source` names "
            "another writer. With `best` the aggregator's own is the last proposal.",
        ),
        FINISH,
    ),
)
ORDERS = Field(
    "orders",
    "list of objects",
    "The orders that were judged: two; none for two equal answers, which nobody judged.",
    (
        Field("first", "whole number", "Index of the answer shown first (as `a` or `b`)."),
        Field("second", "whole number", "Index of the answer shown second."),
        Field("criteria", "list of texts", "The criteria of this order."),
        Field(
            "assessments",
            "list of objects",
            "What each judging proposer wrote about both answers.",
            (PROPOSER, MODEL, Field("text", "text", "The assessment."), FINISH),
        ),
        LEFT_OUT,
        Field("verdict", "text", "`A`: the answer shown first is better; `B`: the second."),
        Field("p", "number", "Probability that the answer shown first is better."),
        Field("soft", "true or false", "Whether `p` is from log-probabilities; else it is 0 or 1."),
        Field("text", "text", "What the aggregator wrote."),
    ),
)
JUDGEMENT = (
    Field("a", "whole number", "Index of answer *a*."),
    Field("b", "whole number", "Index of answer *b*."),
    Field(
        "p",
        "number or null",
        "Probability that *a* is better: the mean of both orders; null unless both were judged.",
    ),
    Field("p_ab", "number or null", "The same, with *a* shown first."),
    Field("p_ba", "number or null", "The same, with *b* shown first."),
    Field("criteria", "list of texts", "The criteria that were used in any order."),
    ORDERS,
    Field(
        "lost",
        "list of objects",
        "The orders that could not be judged.",
        (
            Field("first", "whole number", "Index of the answer shown first."),
            Field("second", "whole number", "Index of the answer shown second."),
            Field("reason", "text", "Why, in a few words."),
            Field("detail", "text", "More about it."),
        ),
    ),
    Field(
        "asked_again", "whole number", "Replies that could not be read and were asked for again."
    ),
)
REASON = Field("reason", "text", "Why the row was rejected: a short text for counting.")
DETAIL = Field("detail", "text", "More about it.")
PROMPT = (ID, SOURCE, SYSTEM, TURNS)
