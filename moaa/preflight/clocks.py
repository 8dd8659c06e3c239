"""Whether the clocks agree: leases run out by them, and S3 refuses requests of a machine that is
far off."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime

from moaa.errors import MoaaError
from moaa.preflight.finding import Finding, unseen

MOST_S = 30.0
"""A quarter of a lease: a reaper whose clock is ahead by more could end what is in use."""


def findings(
    clocks: Mapping[str, Callable[[], float | None]], now: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """How far each clock (unix seconds, None: cannot be read) is from this machine's."""
    for name, read in clocks.items():
        before = now()
        try:
            there = read()
        except MoaaError:
            there = None
        if there is None:
            yield unseen("clock", f"{name} tells no time")
            continue
        # A Date header names the second that has begun: half a second is the least that can be
        # seen.
        apart = there + 0.5 - (before + now()) / 2
        ok = abs(apart) <= MOST_S
        word = (
            "agrees with this one"
            if abs(apart) <= 2
            else f"is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this one"
        )
        yield Finding(
            "clock", ok, f"the clock of {name} {word}", "let both follow a time server (NTP)"
        )


def of_url(url: str) -> float | None:
    """The clock of an HTTP server, by the Date of whatever it answers."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return of_date(answer.headers.get("Date"))
    except urllib.error.HTTPError as refused:
        return of_date(refused.headers.get("Date"))
    except (OSError, ValueError):
        return None


def of_date(header: str | None) -> float | None:
    try:
        return parsedate_to_datetime(header or "").timestamp()
    except ValueError:
        return None
