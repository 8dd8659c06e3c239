"""Tells when a new revision answers worse than the one in production. Pure: no clock, no I/O.

    guard = Guard()
    if reason := guard.add(Outcome("v2", status=500), candidate=True): ...   # take its share away

Four signs are counted for each revision: errors, empty answers, answers that were cut at the token
limit, and first tokens that came late. For each sign a cumulative sum of log likelihood ratios
(Page 1954; as an e-detector, Shin, Ramdas and Rinaldo 2022) compares the candidate with the most
that production's own rate allows: its upper bound plus a margin. A candidate that is as good as
that bound is accused once in 1 / FALSE requests at most, however long one looks; one that is as
good as production, far more rarely. One that always fails is found after about 8 requests.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Literal, Protocol

from moaa.statistics.rates import wilson

Sign = Literal["error", "empty", "cut", "late"]
MARGINS: Final[Mapping[Sign, float]] = {"error": 0.02, "empty": 0.02, "cut": 0.15, "late": 0.15}
"""How much more often than in production a sign may be seen."""
WORDS: Final[Mapping[Sign, str]] = {
    "error": "failed",
    "empty": "were empty",
    "cut": "were cut at the token limit",
    "late": "came late",
}
FALSE: Final = 1e-5
"""One false accusation in so many requests at most."""
WORSE: Final = (0.1, 0.2, 0.35, 0.6, 0.95)
"""The rates that a bad revision may have: the test is powerful at and between them."""
REMEMBERED: Final = 500
"""How many of production's latest requests its rates are about."""
LATEST: Final = 10
"""So few tell when both revisions begin to fail: a node or the network is down."""
LATE_FACTOR: Final[Mapping[bool, float]] = {True: 2.0, False: 4.0}
LATE_S: Final[Mapping[bool, float]] = {True: 0.02, False: 0.2}
"""A first token (True) is late after LATE_FACTOR times production's median, and LATE_S more; a
whole answer (False), whose length differs too, after more. Production has late ones too: how often,
is counted as for the other signs."""
FEWEST_TIMES: Final = 20
"""Production's median needs so many times, and is renewed after as many more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request to a promoted model ended."""

    revision: str
    status: int
    """The HTTP status, or what it would have been if the headers had not been sent: 502 for a
    stream that broke."""
    first_token_s: float | None = None
    """To the first token of a stream, or to a whole answer that is not streamed. None if there was
    none; infinity if none came for too long."""
    streamed: bool = True
    empty: bool = False
    cut: bool = False
    conversation: str = ""
    """Its digest. Empty, cut and late answers count once a conversation: one client that asks for
    three tokens says nothing about the revision."""

    @property
    def refused(self) -> bool:
        """Whether the client did something wrong, which says nothing about the revision."""
        return 400 <= self.status < 500 and self.status != 408

    @property
    def ended(self) -> bool:
        """Whether the request is over; one that waits for too long will have another outcome."""
        return self.first_token_s != math.inf


class Watch(Protocol):
    """Wants to know how requests to a revision go."""

    def first_token(self) -> None:
        """The stream has begun."""
        ...

    def seen(self, outcome: Outcome) -> None:
        """One attempt has ended."""
        ...


@dataclass(slots=True)
class Counts:
    """How often a sign was seen, and in how many requests."""

    bad: float = 0.0
    of: float = 0.0

    def add(self, bad: bool, *, remembered: int | None = None) -> None:
        keep = 1 - 1 / remembered if remembered else 1.0
        self.bad, self.of = self.bad * keep + bad, self.of * keep + 1

    def __str__(self) -> str:
        return f"{self.bad:.0f} of {self.of:.0f}"


@dataclass(slots=True)
class Detector:
    """The cumulative sums of one sign, one for each rate of WORSE."""

    sums: list[float] = field(default_factory=lambda: [0.0] * len(WORSE))

    def add(self, bad: bool, most: float) -> bool:
        """Return whether the sign is now seen too often. `most`: the rate that is allowed."""
        for i, rate in enumerate(WORSE):
            if rate > most:
                step = math.log(rate / most) if bad else math.log((1 - rate) / (1 - most))
                self.sums[i] = max(0.0, self.sums[i]) + step
        if max(self.sums) < -math.log(FALSE):
            return False
        return sum(math.exp(min(each, 100.0)) for each in self.sums) / len(WORSE) >= 1 / FALSE


@dataclass(slots=True)
class Latencies:
    """Production's latest times of one kind, and when a time is late."""

    factor: float
    more_s: float
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    late_after_s: float | None = None
    _new: int = 0

    def add(self, seconds: float) -> None:
        self.latest.append(seconds)
        self._new += 1
        if self._new == FEWEST_TIMES:
            self._new = 0
            self.late_after_s = self.factor * median(self.latest) + self.more_s


class Guard:
    """Counts the outcomes of a candidate and of production."""

    def __init__(self) -> None:
        self._production: dict[Sign, Counts] = {sign: Counts() for sign in MARGINS}
        self._latest: dict[Sign, Counts] = {sign: Counts() for sign in MARGINS}
        self._latencies = {kind: Latencies(LATE_FACTOR[kind], LATE_S[kind]) for kind in LATE_S}
        self.candidate = ""
        """The revision that is judged."""
        self._seen: dict[Sign, Counts] = {}
        self._detectors: dict[Sign, Detector] = {}
        self._conversations: set[str] = set()

    def judge(self, candidate: str) -> None:
        """Judge this revision from now on: nothing held against another one counts."""
        self.candidate = candidate
        self._seen = {sign: Counts() for sign in MARGINS}
        self._detectors = {sign: Detector() for sign in MARGINS}
        self._conversations = set()

    def late_after_s(self, streamed: bool) -> float | None:
        """Return when a first token, or a whole answer, is late; None while production has shown
        too few."""
        return self._latencies[streamed].late_after_s

    def add(self, outcome: Outcome) -> str:
        """Count an outcome. Return why the candidate is worse, in words; empty if it is not."""
        signs = self._signs(outcome)
        if outcome.revision != self.candidate:
            for sign, bad in signs.items():
                self._production[sign].add(bad, remembered=REMEMBERED)
                self._latest[sign].add(bad, remembered=LATEST)
            first_s = outcome.first_token_s
            if first_s is not None and math.isfinite(first_s) and outcome.status < 400:
                self._latencies[outcome.streamed].add(first_s)
            return ""
        again = outcome.conversation in self._conversations
        if outcome.conversation:
            self._conversations.add(outcome.conversation)
        for sign, bad in signs.items():
            if again and sign != "error":
                continue
            self._seen[sign].add(bad)
            if self._detectors[sign].add(bad, self.allowed(sign)):
                return self._reason(sign, outcome.streamed)
        return ""

    def allowed(self, sign: Sign) -> float:
        """Return how often the candidate may show a sign: production's upper bound and a margin."""
        known = self._production[sign]
        lasting = wilson(known.bad + 0.25, known.of + 5)[1]
        return min(0.97, max(lasting, self._latest[sign].bad / LATEST) + MARGINS[sign])

    def _signs(self, outcome: Outcome) -> dict[Sign, bool]:
        """The signs that this outcome can show; a request that was refused shows none."""
        if outcome.refused:
            return {}
        failed = outcome.status >= 400
        signs: dict[Sign, bool] = {"error": failed}
        if not failed:
            signs |= {"empty": outcome.empty, "cut": outcome.cut}
            first_s, limit_s = outcome.first_token_s, self.late_after_s(outcome.streamed)
            if first_s is not None and (limit_s is not None or math.isinf(first_s)):
                signs["late"] = limit_s is None or first_s > limit_s
        return signs

    def _reason(self, sign: Sign, streamed: bool) -> str:
        limit_s = self.late_after_s(streamed) if sign == "late" else None
        late = f" (after more than {limit_s:.2f} s)" if limit_s else ""
        return (
            f"{self._seen[sign]} answers of revision {self.candidate} {WORDS[sign]}{late}; in "
            f"production {self._production[sign]}"
        )
