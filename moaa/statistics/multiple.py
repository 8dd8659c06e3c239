"""Corrects several tests at once, so that they give no more false alarms than one."""

from __future__ import annotations

from collections.abc import Mapping


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's adjusted p-value of each test: below 0.05 is a finding, for any number of
    tests.

    The chance of even one false finding stays below that level, however the tests depend on each
    other (Holm, 1979).
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}
