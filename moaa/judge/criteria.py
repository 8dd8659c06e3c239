"""Step 1 of a judgement: three of eight criteria, picked for the query and both answers (paper)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from moaa.errors import RowRejected

CRITERIA = {
    "Instruction adherence": "does what the query asks, within every constraint it states "
    "(format, length, language, tone)",
    "Relevance": "stays with the question and leaves out what does not help to answer it",
    "Accuracy": "facts, reasoning, calculations and code are correct, and nothing is made up",
    "Depth": "covers the matter completely and in as much detail as the query calls for",
    "Clarity": "is well structured, precise and easy to follow",
    "Helpfulness": "serves what the user is trying to achieve and can be acted upon",
    "Safety": "avoids harmful, dangerous, unfair or deceptive content, and declines only what "
    "should be declined",
    "Robustness": "copes with ambiguity, wrong premises and special cases, and says where it is "
    "uncertain",
}

TRIPLES: tuple[str, ...] = tuple(", ".join(triple) for triple in combinations(CRITERIA, 3))
"""The 56 possible choices, in the form in which the model writes them."""

REPLY_FORM = (
    "Reply with the names of exactly three of these criteria, separated by commas, "
    "and nothing else."
)
"""The end of the criteria prompt for every template: the parser below needs it."""

_BY_NAME = {name.casefold(): name for name in CRITERIA}


def parse(text: str) -> tuple[str, ...]:
    """Return the three criteria in the last line of `text`, in the order of `CRITERIA`.

    It is strict, for engines that decode without a grammar: it raises `RowRejected` unless the line
    is three different names and nothing else.
    """
    lines = text.strip().splitlines() or [""]
    names = [part.strip(" \t*_`.\"'").casefold() for part in lines[-1].split(",")]
    picked = {_BY_NAME[name] for name in names if name in _BY_NAME}
    if len(names) != 3 or len(picked) != 3:
        raise RowRejected(
            "criteria unparseable",
            f"expected three of the eight criteria, got {lines[-1][-200:]!r}",
        )
    return tuple(name for name in CRITERIA if name in picked)


def described(names: Sequence[str]) -> str:
    """Return the criteria with their definitions for a prompt, one per line."""
    return "\n".join(f"- {name}: {CRITERIA[name]}" for name in names)
