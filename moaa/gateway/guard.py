"""Tells when a new revision answers worse than the version in production. Pure: no clock, no I/O.

    guard = Guard()
    if reason := guard.add(RequestOutcome("v2", status=500)): ...   # set its share to 0

Four signs are counted for each revision: errors, empty answers, answers cut at the token limit, and
late first tokens. For each sign a cumulative sum of log likelihood ratios (Page 1954; as an
e-detector, Shin, Ramdas and Rinaldo 2022) compares the candidate with an allowed rate: the upper
bound of production's own rate, plus a margin. A candidate at exactly the allowed rate is accused at
most once in 1 / FALSE requests, for any number of looks. One as good as production is accused far
more rarely. One that always fails is found after about 8 requests.
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
"""The margin of each sign: how far its rate may lie above production's upper bound."""
WORDS: Final[Mapping[Sign, str]] = {
    "error": "failed",
    "empty": "were empty",
    "cut": "were cut at the token limit",
    "late": "came late",
}
FALSE: Final = 1e-5
"""The chance of a false accusation per request: at most once in 1 / FALSE requests."""
WORSE: Final = (0.1, 0.2, 0.35, 0.6, 0.95)
"""The rates that a bad revision may have. The test works best at these rates and between them."""
REMEMBERED: Final = 500
"""Production's rates are about its last REMEMBERED requests: older ones count less and less."""
LATEST: Final = 10
"""The number of latest requests that show whether both revisions fail: then a node or the network
is down."""
LATE_FACTOR: Final[Mapping[bool, float]] = {True: 2.0, False: 4.0}
LATE_S: Final[Mapping[bool, float]] = {True: 0.02, False: 0.2}
"""A time is late above LATE_FACTOR times production's median plus LATE_S seconds. True: the time to
a first token. False: the time to a whole answer, whose length varies, so more is allowed."""
FEWEST_TIMES: Final = 20
"""The median needs FEWEST_TIMES times. It is computed again after as many new ones."""


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """How one request to a promoted model ended."""

    revision: str
    status: int
    """The HTTP status. For a stream that broke after its headers were sent: 502."""
    first_token_s: float | None = None
    """Seconds to the first token of a stream, or to a whole answer that is not streamed. None:
    nothing came. Infinity: nothing has come for too long."""
    streamed: bool = True
    empty: bool = False
    cut: bool = False
    conversation: str = ""
    """The digest of the conversation. Empty, cut and late answers count once a conversation, so
    that one client that asks for three tokens cannot accuse a revision."""

    @property
    def refused(self) -> bool:
        """Whether the client made a mistake: that says nothing about the revision."""
        return 400 <= self.status < 500 and self.status != 408

    @property
    def ended(self) -> bool:
        """Whether the request is over. One that has waited
        for too long gets another outcome later."""
        return self.first_token_s != math.inf


class RequestWatch(Protocol):
    """Gets the outcomes of requests to a revision."""

    def first_token(self) -> None:
        """Called when the stream has begun."""
        ...

    def seen(self, outcome: RequestOutcome) -> None:
        """Called when one attempt has ended."""
        ...


@dataclass(slots=True)
class Counts:
    """How often a sign was seen, and in how many requests."""

    bad: float = 0.0
    of: float = 0.0

    def add(self, bad: bool, *, remembered: int | None = None) -> None:
        """Count one request. `remembered`: forget older ones, as if only that many were kept."""
        keep = 1 - 1 / remembered if remembered else 1.0
        self.bad, self.of = self.bad * keep + bad, self.of * keep + 1

    def __str__(self) -> str:
        return f"{self.bad:.0f} of {self.of:.0f}"


@dataclass(slots=True)
class Detector:
    """The cumulative sums of one sign, one for each rate of WORSE."""

    sums: list[float] = field(default_factory=lambda: [0.0] * len(WORSE))

    def add(self, bad: bool, most: float) -> bool:
        """Count one request; return whether the sign is now seen too often. `most`:
        the allowed rate."""
        for i, rate in enumerate(WORSE):
            if rate > most:
                step = math.log(rate / most) if bad else math.log((1 - rate) / (1 - most))
                self.sums[i] = max(0.0, self.sums[i]) + step
        if max(self.sums) < -math.log(FALSE):
            return False
        return sum(math.exp(min(each, 100.0)) for each in self.sums) / len(WORSE) >= 1 / FALSE


@dataclass(slots=True)
class Latencies:
    """Production's latest times of one kind, and from when on a time is late."""

    factor: float
    more_s: float
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    late_after_s: float | None = None
    _new: int = 0

    def add(self, seconds: float) -> None:
        """Add a time, and compute the limit again after every FEWEST_TIMES of them."""
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
        """Judge this revision from now on. Results of other revisions are dropped."""
        self.candidate = candidate
        self._seen = {sign: Counts() for sign in MARGINS}
        self._detectors = {sign: Detector() for sign in MARGINS}
        self._conversations = set()

    def late_after_s(self, streamed: bool) -> float | None:
        """Return after how many seconds a first token, or a whole answer, is late; None until
        production has shown enough times."""
        return self._latencies[streamed].late_after_s

    def add(self, outcome: RequestOutcome) -> str:
        """Count an outcome. Return in words why the candidate is worse; empty if it is not."""
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
        """Return the rate of this sign that the candidate may have:
        production's upper bound plus a margin."""
        known = self._production[sign]
        lasting = wilson(known.bad + 0.25, known.of + 5)[1]
        return min(0.97, max(lasting, self._latest[sign].bad / LATEST) + MARGINS[sign])

    def _signs(self, outcome: RequestOutcome) -> dict[Sign, bool]:
        """Return the signs that this outcome can show: none for a request that was refused."""
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
