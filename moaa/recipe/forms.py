"""The forms of names and texts in documents, with the words by which errors describe them."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_WORDS: Final = (
    (r"^Value error, ", ""),
    (r"^(Input|String|Tuple|List|Dictionary) should", "It must"),
    (r" after validation, not \d+$", ""),
    (r", unable to (parse|interpret) .*", ""),
    (r"a valid dictionary( or instance of \w+)?|an object", "a mapping of fields"),
    (r"a valid (array|list|tuple)", "a list"),
    (r"a valid boolean", "true or false"),
    (r"a valid integer", "a whole number"),
    (r"a valid number", "a number"),
    (r"a valid string", "a text"),
)
"""Patterns in what pydantic says, and our words instead."""


def in_words(message: str) -> str:
    """Return what pydantic says of a value as a sentence of ours, without the full stop."""
    for theirs, ours in _WORDS:
        message = re.sub(theirs, ours, message)
    return message


def form(pattern: str, words: str) -> AfterValidator:
    """Return the check that a whole text matches a pattern. `words` say in an error what it must
    be."""

    def checked(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError("form", "It must be {words}", {"words": words})
        return text

    return AfterValidator(checked)


def _each_once(given: tuple[str, ...]) -> tuple[str, ...]:
    for index, value in enumerate(given):
        if value in given[:index]:
            raise ValueError(f"'{value}' is there twice; name each once")
    return given


Once: Final = AfterValidator(_each_once)
"""The check that a list names nothing twice."""


def small_letters(most: int) -> AfterValidator:
    """Return the form of names that also Kubernetes takes."""
    return form(
        rf"[a-z0-9]([-a-z0-9]{{0,{most - 2}}}[a-z0-9])?",
        f"small letters, digits and -, at most {most} characters, with no - at an end",
    )


RunName = Annotated[str, small_letters(40)]
DnsLabel = Annotated[str, small_letters(63)]
DnsName = Annotated[
    str,
    form(
        r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?",
        "small letters, digits, - and ., at most 253 characters, with no - or . at an end",
    ),
]
PublishedName = Annotated[
    str,
    form(
        r"[A-Za-z0-9]([-A-Za-z0-9._ ]{0,94}[A-Za-z0-9])?",
        "letters, digits, -, ., _ and spaces, at most 96 characters, with a letter or a digit at "
        "both ends",
    ),
]
"""Without `/`: a server that loads `model-registry://HOST/MODEL/VERSION` would cut it there."""
Repository = Annotated[
    str,
    form(
        r"[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*",
        "OWNER/NAME, both of letters, digits, -, . and _",
    ),
]
MODEL_NAME: Final = r"""[^\s"'\x00-\x1f\x7f]{1,200}"""
MODEL_NAME_WORDS: Final = "1 to 200 characters without spaces and quotes"
ModelName = Annotated[str, form(MODEL_NAME, MODEL_NAME_WORDS)]
Bucket = Annotated[str, form(r"s3://[^/]+/?.*", "s3://BUCKET or s3://BUCKET/PREFIX")]
Account = Annotated[str, form(r"[0-9]{12}", "12 digits")]
Text = Annotated[str, form(r"(?s).*\S.*", "a text with at least one word; leave it out, or null")]
