"""The log-probabilities of an answer's tokens: read from the protocol, without those of its
reasoning."""

from __future__ import annotations

import math
import re
from typing import Any

FORBIDDEN = -9999.0
"""The log-probability of a token that a grammar forbids, as vLLM gives it."""
ROUNDING = 0.01
"""By how much a log-probability may be above 0."""

Position = dict[str, float]
"""Token -> log-probability at one position. The token that was written comes first; of two with the
same text, the likelier counts."""

_NOT_TEXT = re.compile(r"\s*|<[^<>]*>|\[/?[A-Z_]+\]|◁[^◁▷]*▷")
"""Tokens after the text: white space and the end of the turn."""


def read_logprobs(logprobs: Any, text: str) -> tuple[Position, ...] | None:
    """The positions whose tokens make up the end of `text`; None if there are none.

    Servers send the tokens of the reasoning in the same list, before those of the text. Raises
    ValueError (or what reading another form raises) if it is not in the protocol's form.
    """
    content = (logprobs or {}).get("content")
    if not content:
        return None
    if not isinstance(content, list):
        raise ValueError("the log-probabilities are no list")
    positions = tuple([_position(position) for position in content])
    return aligned(positions, text) or None


def aligned(positions: tuple[Position, ...], text: str) -> tuple[Position, ...]:
    """The last positions whose tokens, joined, are the end of the text: all of the text unless a
    server writes a token in another way (half a character)."""
    left, end = text.strip(), len(positions)
    while (
        end
        and _NOT_TEXT.fullmatch(_token(positions[end - 1]))
        and not left.endswith(_token(positions[end - 1]).strip() or "\0")
    ):
        end -= 1
    start = end
    while start and left:
        token = _token(positions[start - 1])
        token = token.rstrip() if start == end else token
        if left.endswith(token):
            left = left[: len(left) - len(token)]
        elif token.lstrip() == left.lstrip():
            left = ""
        else:
            break
        start -= 1
    return positions[start:end]


def _token(position: Position) -> str:
    return next(iter(position))


def _position(position: Any) -> Position:
    written = _text(position["token"])
    likeliest: Position = {written: _logprob(position["logprob"], written=True)}
    for token in position.get("top_logprobs") or ():
        name, logprob = _text(token["token"]), _logprob(token["logprob"])
        likeliest[name] = max(logprob, likeliest.get(name, logprob))
    return likeliest


def _text(token: Any) -> str:
    if not isinstance(token, str):
        raise ValueError(f"a token is {token!r}")
    return token


def _logprob(value: Any, *, written: bool = False) -> float:
    """Between -9999, vLLM's number for a forbidden token, and 0. Other servers give forbidden
    tokens -Infinity, which a token that was `written` cannot have."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a log-probability is {value!r}")
    logprob = float(value)
    if math.isnan(logprob) or logprob > ROUNDING or (written and math.isinf(logprob)):
        raise ValueError(f"a log-probability is {value!r}")
    return min(max(logprob, FORBIDDEN), 0.0)
