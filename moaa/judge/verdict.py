"""Step 3 of a judgement: the probability that the answer shown first is the better one."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from moaa.chat.message import Choice
from moaa.errors import RowRejected

CHOICES = ("A", "B")
"""The texts of a soft verdict. The engine decodes with a grammar: p(A) + p(B) = 1 at the first
token."""

REPLY_FORM = {
    "soft": "Reply with the letter of the better answer, A or B, and nothing else.",
    "parsed": (
        "Explain your decision in a few sentences. Then end your reply with your verdict alone on "
        "the last line: [[A]] if Answer A is better, [[B]] if Answer B is better."
    ),
}
"""The end of the verdict prompt, whatever its template: the parsers below need it."""

_BRACKETED = re.compile(r"\[\[([AB])\]\]")
_ENDS = re.compile(r"\[\[[AB]\]\][\s.*]*\Z")
_BARE = re.compile(r"[\s\"'*\[(]*([AB])[\s\"'*\]).]*\Z")


class Verdict(NamedTuple):
    """Which answer is better, and how likely that is."""

    letter: str
    """A: the answer shown first is better; B: the second."""
    p: float
    """Probability that the answer shown first is better."""
    soft: bool
    """False if `p` is only the 0 or 1 of the letter."""


def parsed(choice: Choice) -> Verdict:
    """The verdict of a text that ends in `[[A]]` or `[[B]]`. Raises `RowRejected` for any other
    text."""
    last_line = choice.text.strip().rpartition("\n")[2]
    letters = set(_BRACKETED.findall(last_line))
    if len(letters) != 1 or not _ENDS.search(last_line):
        raise RowRejected(
            "verdict unparseable",
            f"expected [[A]] or [[B]] at the end, got {choice.text.strip()[-200:]!r}",
        )
    (letter,) = letters
    return Verdict(letter, float(letter == "A"), soft=False)


def soft(choice: Choice) -> Verdict:
    """The verdict of a text that is a single letter, with the probability of the token that holds
    it.

    Without log-probabilities, p is 0 or 1. Engines without grammars may also explain themselves and
    end in `[[A]]` or `[[B]]`. An explanation names both answers, so the last token that is a letter
    counts. If the other letter is likelier at that token, it is not the token of the verdict, and p
    is 0 or 1.
    """
    bare = _BARE.match(choice.text)
    letter = bare[1] if bare else parsed(choice).letter
    found = first_better(choice)
    weighed = (
        found[:1] if bare else [p for p in found[-1:] if (p if letter == "A" else 1 - p) >= 0.5]
    )
    return (
        Verdict(letter, weighed[0], soft=True)
        if weighed
        else Verdict(letter, float(letter == "A"), soft=False)
    )


def first_better(choice: Choice) -> list[float]:
    """pA / (pA + pB) at each token that is exactly A or B, in order; empty without
    log-probabilities.

    `[[A]]` is tokenized in more than one way, so the token is searched for, not counted off. The
    likeliest token is taken for the chosen one: the candidates of a position do not show which was
    chosen.
    """
    found: list[float] = []
    for candidates in choice.tokens or ():
        if candidates and max(candidates, key=candidates.__getitem__).strip() in CHOICES:
            # Forbidden tokens have -9999: exp() makes them 0.
            p_a, p_b = (
                sum(math.exp(lp) for token, lp in candidates.items() if token.strip() == letter)
                for letter in CHOICES
            )
            if p_a + p_b:
                found.append(p_a / (p_a + p_b))
    return found
