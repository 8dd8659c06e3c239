"""The log-probabilities of an answer's tokens:
read from the protocol, without the tokens of its reasoning."""

from __future__ import annotations

import math
import re
from typing import Any

FORBIDDEN = -9999.0
"""The log-probability of a token that a grammar forbids, in vLLM's answers."""
ROUNDING = 0.01
"""How far a log-probability may lie above 0 (rounding)."""

Position = dict[str, float]
"""Token -> log-probability at one position. The token that was written comes first. Of two tokens
with the same text the likelier one counts."""

_NOT_TEXT = re.compile(r"\s*|<[^<>]*>|\[/?[A-Z_]+\]|◁[^◁▷]*▷")
"""Tokens after the text: white space and the end of the turn."""


def read_logprobs(logprobs: Any, text: str) -> tuple[Position, ...] | None:
    """Return the positions whose tokens make up the end of `text`; None if there are none.

    Servers send the tokens of the reasoning in the same list, before those of the text. Raises
    ValueError, KeyError and the like if the list does not have the protocol's form.
    """
    content = (logprobs or {}).get("content")
    if not content:
        return None
    if not isinstance(content, list):
        raise ValueError("the log-probabilities are not a list")
    positions = tuple([_position(position) for position in content])
    return aligned(positions, text) or None


def aligned(positions: tuple[Position, ...], text: str) -> tuple[Position, ...]:
    """Return the last positions whose tokens, joined, are the end of the text. It is all of the
    text unless a server writes a token in another way (half a character)."""
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
    """Return a number between -9999 (vLLM's for a forbidden token) and 0. Other servers give
    forbidden tokens -Infinity, which is an error for the token that was `written`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a log-probability is {value!r}")
    logprob = float(value)
    if math.isnan(logprob) or logprob > ROUNDING or (written and math.isinf(logprob)):
        raise ValueError(f"a log-probability is {value!r}")
    return min(max(logprob, FORBIDDEN), 0.0)
