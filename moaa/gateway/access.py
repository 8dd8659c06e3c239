"""Who asks, what that key may do, and how much.

Keys are known by their hashes alone. No header of a client changes its rights.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from moaa.gateway.config import GatewayConfig
from moaa.gateway.keys import Key, Limits, Rights, load_keys
from moaa.gateway.wire import ApiError

Clock = Callable[[], float]


class Bucket:
    """A token bucket: `per_minute` units a minute, at most `per_minute` at once;
    full at the start."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self.per_minute, self._clock = per_minute, clock
        self._left, self._at = float(per_minute), clock()

    def wait_s(self, units: float) -> float:
        """Return the seconds until the bucket holds `units`; 0 if it does now."""
        now = self._clock()
        self._left = min(self.per_minute, self._left + (now - self._at) * self.per_minute / 60)
        self._at = now
        return max(0.0, (units - self._left) * 60 / self.per_minute)

    def take(self, units: float) -> None:
        """Take `units` out. The level may fall below zero: later calls then wait longer."""
        self._left -= units


class Limiter:
    """The limits of one key, or of all clients together, and how much of them is used."""

    def __init__(self, limits: Limits, clock: Clock = time.monotonic) -> None:
        self.limits = limits
        self.in_flight = 0
        self._calls = limits.calls_per_minute and Bucket(limits.calls_per_minute, clock)
        self._tokens = limits.tokens_per_minute and Bucket(limits.tokens_per_minute, clock)

    @property
    def counts_tokens(self) -> bool:
        """Whether the number of tokens in an answer must be known."""
        return bool(self._tokens)

    def over(self, calls: int) -> tuple[str, float, bool] | None:
        """Return the limit that `calls` more calls would exceed, the seconds to wait, and whether
        waiting helps; None if the calls may start now."""
        most = self.limits.in_flight
        if most is not None and self.in_flight + calls > most:
            return "in_flight", 1.0, calls <= most
        if self._calls and (wait_s := self._calls.wait_s(calls)) > 0:
            return "calls_per_minute", wait_s, calls <= self._calls.per_minute
        if self._tokens and (wait_s := self._tokens.wait_s(1)) > 0:
            return "tokens_per_minute", wait_s, True
        return None

    def begin(self, calls: int) -> None:
        """Count calls that start."""
        self.in_flight += calls
        if self._calls:
            self._calls.take(calls)

    def end(self, calls: int) -> None:
        """Count calls that have ended."""
        self.in_flight -= calls

    def spend(self, tokens: int) -> None:
        """Count the tokens of an answer."""
        if self._tokens:
            self._tokens.take(tokens)


@dataclass(eq=False, slots=True)
class Caller:
    """Who asks: the name of the key (empty: anonymous), its rights, and what it has used."""

    name: str
    rights: Rights
    limiter: Limiter = field(repr=False)

    def may_ask(self, model: str) -> bool:
        """Return whether the key may use this model."""
        return self.rights.models is None or model in self.rights.models


class Access:
    """The callers of one gateway."""

    def __init__(
        self,
        config: GatewayConfig,
        refused: Callable[[str, str], None] = lambda key, limit: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._clock, self._refused = clock, refused
        self._all = Limiter(config.limits, clock)
        self._callers: dict[bytes, Caller] = {}
        self._anonymous = (
            Caller("", config.anonymous, Limiter(config.anonymous.limits, clock))
            if config.anonymous is not None
            else None
        )
        self._own, self._file = config.keys, config.keys_file and Path(config.keys_file)
        self._state_of_file: object = None
        self.set_keys(config.keys)
        self.read_keys()

    def set_keys(self, keys: Sequence[Key]) -> None:
        """Use these keys from now on. A key that was there before keeps its counts."""
        before = self._callers
        self._callers = {}
        for key in keys:
            digest = bytes.fromhex(key.sha256)
            known = before.get(digest)
            if known is None or known.rights != key:
                known = Caller(key.name, key, Limiter(key.limits, self._clock))
            self._callers[digest] = known

    def read_keys(self) -> bool:
        """Read the file of keys if it has changed; return whether it had. Raises RecipeError if the
        file is wrong: the keys then stay as they are."""
        if not self._file:
            return False
        state = _state_of(self._file)
        if state == self._state_of_file and state is not None:
            return False
        self._state_of_file = state
        self.set_keys([*self._own, *load_keys(self._file)])
        return True

    def caller(self, authorization: str | None) -> Caller:
        """Return who sent this Authorization header. Raises ApiError 401 if the key is unknown."""
        scheme, _, token = (authorization or "").partition(" ")
        if token and scheme.lower() == "bearer":
            digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
            found = None
            for known, caller in self._callers.items():  # no early exit: the time shows nothing
                if hmac.compare_digest(known, digest):
                    found = caller
            if found is not None:
                return found
        if self._anonymous is not None:
            return self._anonymous
        given = "This key is not known here" if token else "There is no key in the request"
        raise ApiError(
            401,
            f"{given}. Send the header `Authorization: Bearer KEY`.",
            "invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    @contextmanager
    def admitted(self, caller: Caller, calls: int = 1) -> Iterator[None]:
        """Count `calls` calls to engines while the context lasts.
        Raises ApiError 429 if over a limit."""
        for limiter, whose in ((caller.limiter, "this key"), (self._all, "this gateway")):
            if over := limiter.over(calls):
                limit, after_s, ever = over
                self._refused(caller.name, limit)
                raise _too_many(whose, limit, limiter.limits, calls, after_s if ever else None)
        for limiter in (caller.limiter, self._all):
            limiter.begin(calls)
        try:
            yield
        finally:
            for limiter in (caller.limiter, self._all):
                limiter.end(calls)

    def spend(self, caller: Caller, tokens: int) -> None:
        """Count the tokens of an answer to this caller."""
        caller.limiter.spend(tokens)
        self._all.spend(tokens)

    def counts_tokens(self, caller: Caller) -> bool:
        """Whether the number of tokens in this caller's answers must be known."""
        return caller.limiter.counts_tokens or self._all.counts_tokens


def _state_of(path: Path) -> object:
    """Return a value that changes when the file is written or its link points elsewhere."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _too_many(
    whose: str, limit: str, limits: Limits, calls: int, after_s: float | None
) -> ApiError:
    words = {
        "in_flight": "calls at the same time",
        "calls_per_minute": "calls a minute",
        "tokens_per_minute": "tokens a minute",
    }[limit]
    message = f"The limit of {whose} is {getattr(limits, limit)} {words}."
    if after_s is None:
        message += f" This request needs {calls} calls, so waiting does not help."
        return ApiError(429, message, "limit_too_small", retry=False)
    return ApiError(429, f"{message} Try again in {after_s:.0f} s.", after_s=after_s)
