"""How long a failed call is tried again, and how long to wait between attempts."""

from __future__ import annotations

import random
import time

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0


class RetryWindow:
    """Retry one call for `window_s` after its first failure.

    If an attempt ran longer than `window_s` before it failed, the window starts again, at most
    `renewals` times: a large upload that was nearly done should get another try.
    """

    def __init__(self, window_s: float, renewals: int = 0) -> None:
        self._window_s = window_s
        self._renewals = renewals
        self._pause_s = _FIRST_PAUSE_S
        self._attempt_started = time.monotonic()
        self._first_failure: float | None = None

    @property
    def failed_s(self) -> float:
        """How many seconds the call has been failing."""
        return 0.0 if self._first_failure is None else time.monotonic() - self._first_failure

    def pause(self) -> bool:
        """Call it after a failure. Wait and return True to try again,
        or return False to give up."""
        now = time.monotonic()
        if self._first_failure is None:
            self._first_failure = now
        elif now - self._attempt_started > self._window_s and self._renewals:
            self._first_failure, self._pause_s = now, _FIRST_PAUSE_S
            self._renewals -= 1
        if now - self._first_failure >= self._window_s:
            return False
        time.sleep(self._pause_s * random.uniform(0.5, 1))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._attempt_started = time.monotonic()
        return True
