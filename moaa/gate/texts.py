"""Finds what is wrong with an answer by its text alone."""

from __future__ import annotations

import re
import zlib
from typing import Final

SHORTEST: Final = 200
"""The fewest characters: a shorter text may repeat itself for good reasons."""
COMPRESSED: Final = 5.0
"""A text that compression makes this many times smaller is a loop. Prose shrinks to about 45 % of
its bytes, lists and code to 30 %, a loop to less than 20 %."""

_REFUSAL = re.compile(
    r"\s*(?:i['’]?m sorry|i am sorry|sorry|unfortunately|i apologi[sz]e|as an ai)?[,.;:!]?\s*"
    r"(?:but\s+)?(?:i|we)\s*(?:can(?:not|['’]t| not)|(?:['’]m| am) (?:not able|unable)"
    r"|won['’]t|will not|must decline|have to decline)\b",
    re.IGNORECASE,
)


def repeated(text: str) -> bool:
    """Return whether the text repeats itself again and again."""
    data = text.encode()
    return len(text) >= SHORTEST and len(data) / len(zlib.compress(data, 9)) > COMPRESSED


def refused(text: str) -> bool:
    """Return whether the text starts with a refusal, in English."""
    return _REFUSAL.match(text) is not None
