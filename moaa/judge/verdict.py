"""Step 3 of a judgement: the probability that the answer shown first is better."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from moaa.chat.message import Choice
from moaa.errors import RowRejected

CHOICES = ("A", "B")
"""The texts of a soft verdict. The engine decodes with a grammar,
so p(A) + p(B) = 1 at the first token."""

REPLY_FORM = {
    "soft": "Reply with the letter of the better answer, A or B, and nothing else.",
    "parsed": (
        "Explain your decision in a few sentences. Then end your reply with your verdict alone on "
        "the last line: [[A]] if Answer A is better, [[B]] if Answer B is better."
    ),
}
"""The end of the verdict prompt for every template: the parsers below need it."""

_BRACKETED = re.compile(r"\[\[([AB])\]\]")
_ENDS = re.compile(r"\[\[[AB]\]\][\s.*]*\Z")
_END_OF_TURN = re.compile(r"<(?!/?think)[^<>]*>")
_BARE = re.compile(r"[\s\"'*\[(]*([AB])[\s\"'*\]).]*\Z")


class Verdict(NamedTuple):
    """Which answer is better, and how likely that is."""

    letter: str
    """A: the answer shown first is better; B: the second."""
    p: float
    """Probability that the answer shown first is better."""
    soft: bool
    """Whether `p` comes from log-probabilities. Without them it is the 0 or 1 of the letter."""


def parsed(choice: Choice) -> Verdict:
    """Return the verdict of a text that ends in `[[A]]` or `[[B]]`. Raises `RowRejected` for any
    other text."""
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
    """Return the verdict of a text that is a single letter, with the probability of the letter's
    token.

    Engines without grammars may also explain themselves and end in `[[A]]` or `[[B]]`. Without
    log-probabilities of the verdict's own token, p is 0 or 1.
    """
    bare = _BARE.match(choice.text)
    letter = bare[1] if bare else parsed(choice).letter
    p = _weight(choice, letter)
    return Verdict(letter, float(letter == "A") if p is None else p, soft=p is not None)


def _weight(choice: Choice, letter: str) -> float | None:
    """Return pA / (pA + pB) at the verdict's own token; None if there is no such token or number.

    An explanation names both answers, so the verdict is the last token that is a letter, with no
    word after it. The letter of the text is the token that was written there, which comes first, or
    the likelier one.
    """
    for candidates in reversed(choice.tokens or ()):
        if not candidates:
            continue
        written, likeliest = next(iter(candidates)), max(candidates, key=candidates.__getitem__)
        if written.strip() not in CHOICES and likeliest.strip() not in CHOICES:
            if re.search(r"\w", _END_OF_TURN.sub("", likeliest)):
                return None  # the letter, if there is one before, is not the end of the text
            continue
        # Forbidden tokens have -9999: exp() makes them 0.
        p_a, p_b = (
            sum(math.exp(min(lp, 0)) for token, lp in candidates.items() if token.strip() == name)
            for name in CHOICES
        )
        if not 0 < p_a + p_b < math.inf:
            return None
        p = p_a / (p_a + p_b)
        own = written.strip() == letter or (p if letter == "A" else 1 - p) >= 0.5
        return p if own else None
    return None
