"""Reads what a server says at /metrics, in Prometheus' text format."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from moaa.chat.pool import Endpoint

Metrics = Callable[[Endpoint], Awaitable[str | None]]
"""Returns the text at a server's /metrics; "" if it could not be read now;
None if there is none."""


def summed(samples: re.Pattern[str], metrics: str) -> dict[str, int] | None:
    """Return the values of the samples by name, added up over a server's engines.

    `samples` finds a name and a value in each line that counts. None if a value is not a finite
    number.
    """
    found: dict[str, float] = {}
    try:
        for name, value in samples.findall(metrics):
            found[name] = found.get(name, 0.0) + float(value)
        return {name: int(value) for name, value in found.items()}
    except (ValueError, OverflowError):  # not a number; NaN, infinite
        return None
