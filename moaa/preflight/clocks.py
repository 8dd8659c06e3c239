"""Checks whether the clocks agree.

S3 refuses requests from a machine whose clock is far off, and the times in logs and records should
fit together. (No lease depends on clocks.)
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime

from moaa.errors import MoaaError
from moaa.preflight.finding import Finding, unseen

MOST_S = 30.0
"""S3 refuses requests from clocks that are 15 minutes off. A clock that is off by more than this
does not follow a time server, and the error grows."""


def findings(
    clocks: Mapping[str, Callable[[], float | None]], now: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """Yield the difference of each clock to this machine's (unix seconds; None: cannot be read)."""
    for name, read in clocks.items():
        before = now()
        try:
            there = read()
        except MoaaError:
            there = None
        if there is None:
            yield unseen("clock", f"the clock of {name} cannot be read")
            continue
        # A Date header has whole seconds: half a second is the mean error.
        apart = there + 0.5 - (before + now()) / 2
        word = "agrees with this one"
        if abs(apart) > 2:
            word = f"is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this one"
        detail, fix = f"the clock of {name} {word}", "let both follow a time server (NTP)"
        yield Finding("clock", abs(apart) <= MOST_S, detail, fix)


def of_url(url: str) -> float | None:
    """Return the clock of an HTTP server: the Date header of any answer. None if unreadable."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return of_date(answer.headers.get("Date"))
    except urllib.error.HTTPError as refused:
        return of_date(refused.headers.get("Date"))
    except (OSError, ValueError):
        return None


def of_date(header: str | None) -> float | None:
    """Return a Date header as unix seconds; None if it is unreadable."""
    try:
        return parsedate_to_datetime(header or "").timestamp()
    except ValueError:
        return None
