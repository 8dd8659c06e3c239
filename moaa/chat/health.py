"""Checks whether a server that failed is alive: it asks for one token at a time.

A request may fail because of its content, while the server is well. A server may also take requests
and never answer. Only an answer tells the two apart. So a server that failed is in doubt: it gets
no requests, and a check asks it for one token until one of these happens:

- It answers: then it gets all requests again.
- It is removed: its engine died.
- It has not answered for too long: then it is lost. Its keeper starts it again; without one, its
  model fails.

If a server asks to wait longer than `timeout_s` (a used-up quota), the client waits, up to
LONGEST_WAIT_S.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from moaa.chat.fault import CONNECTION, TIME_OUT, Denied, Fault
from moaa.chat.pool import Endpoint, Pool
from moaa.errors import CallError, EngineError
from moaa.progress.messages import log

PATIENCE: Final = 1.9
"""A server without an answer for PATIENCE times `timeout_s` is lost. The first request that failed
took 1 of it, the check has the rest. It is less than 2, so that the error is reported in time."""

LONGEST_WAIT_S: Final = 6 * 3600.0
"""The longest total wait for a server that asks to wait longer than `timeout_s`."""

LOOK_AGAIN_S: Final = 600.0
"""How often that server is asked for one token during the wait:
a Retry-After may be far too long."""

SILENT_TRIES: Final = 4
"""After this many failed requests of a check a warning is shown; a time-out is shown at once."""

Probe = Callable[[Endpoint, str, float], Awaitable[None]]
"""Asks an endpoint of a model for one token. The last argument: the most seconds. Raises the same
errors as a call, but counts nothing."""


@dataclass(frozen=True, slots=True)
class Rests:
    """How long a check waits between its requests, in seconds."""

    first_s: float = 0.5
    """The first pause. Each later one is twice as long."""
    longest_s: float = 30.0


class Health:
    """The checks of the endpoints in doubt, at most one for each endpoint."""

    def __init__(self, probe: Probe, timeout_s: float, rests: Rests = Rests()) -> None:
        self._probe, self._timeout_s, self._rests = probe, timeout_s, rests
        self._checks: dict[Endpoint, asyncio.Task[None]] = {}

    def answered(self, pool: Pool, endpoint: Endpoint) -> None:
        """The endpoint has answered a request: it is no longer in doubt."""
        if check := self._checks.pop(endpoint, None):
            check.cancel()
        pool.answered(endpoint)

    def doubt(self, pool: Pool, endpoint: Endpoint, fault: Fault, started: float) -> None:
        """Check a server: a request sent at `started` (the loop's clock) failed in a way that may
        be the server's fault."""
        if 0 < fault.after_s <= self._timeout_s:
            pool.rest(endpoint, fault.after_s)
        if endpoint in pool.endpoints and endpoint not in self._checks:
            pool.doubt(endpoint)
            since = max(started, endpoint.answered_at)
            self._checks[endpoint] = asyncio.create_task(
                self._check(pool, endpoint, fault, since), name=f"check of {pool.model}"
            )

    async def settled(self, endpoint: Endpoint) -> None:
        """Wait until the endpoint is no longer in doubt."""
        if check := self._checks.get(endpoint):
            await asyncio.wait([check])

    async def close(self) -> None:
        """Stop all checks."""
        checks = list(self._checks.values())
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    async def _check(self, pool: Pool, endpoint: Endpoint, fault: Fault, since: float) -> None:
        try:
            lost = await self._ask_until_settled(pool, endpoint, fault, since)
        except Exception as bug:  # nothing else would end the wait of its calls
            pool.fail(
                EngineError(f"model '{pool.model}': {endpoint.shown} was not checked: {bug!r}")
            )
            raise
        finally:
            if self._checks.get(endpoint) is asyncio.current_task():
                del self._checks[endpoint]
        if lost:
            pool.lose(endpoint, lost)
        else:
            pool.answered(endpoint)

    async def _ask_until_settled(
        self, pool: Pool, endpoint: Endpoint, fault: Fault, since: float
    ) -> str:
        """Ask until the endpoint answers or is removed (return empty), or is lost (return why)."""
        clock, tries, said = asyncio.get_running_loop().time, 0, False
        last = fault
        deadline = since + PATIENCE * self._timeout_s + min(fault.after_s, self._timeout_s)
        while True:
            deadline = max(deadline, self._asked_for(last, since))
            if not said and last.after_s > self._timeout_s:
                said = True
                log.warning(asks_to_wait(pool.model, endpoint, last))
            if fault.reason != TIME_OUT:
                wait_s = max(self._rest_s(tries), self.wait_s(last))
                await asyncio.sleep(max(0.0, min(wait_s, deadline - clock())))
            if endpoint not in pool.endpoints:
                return ""
            if (left_s := deadline - clock()) <= 0:
                return _why_lost(endpoint, fault, clock() - since)
            if not said and (fault.reason == TIME_OUT or tries >= SILENT_TRIES):
                said = True
                log.warning(_no_answer(pool, endpoint, fault, left_s))
            again = await self._answer(endpoint, pool.model, left_s)
            if again is None:
                if said:
                    log.warning(f"model '{pool.model}': {endpoint.shown} answers again")
                return ""
            tries, last = tries + 1, again
            if again.reason != TIME_OUT:  # a refusal says more than a time-out
                fault = again

    def _asked_for(self, fault: Fault, since: float) -> float:
        """Return until when to wait for a server that asks to wait longer than a call may take."""
        if fault.after_s <= self._timeout_s:
            return since
        wanted = asyncio.get_running_loop().time() + fault.after_s
        return min(wanted, since + LONGEST_WAIT_S) + PATIENCE * self._timeout_s

    async def _answer(self, endpoint: Endpoint, model: str, timeout_s: float) -> Fault | None:
        """Ask for one token; return why the server is not well, or None if it is."""
        try:
            await self._probe(endpoint, model, timeout_s)
        except Fault as fault:
            return None if fault.alive else fault
        except (CallError, EngineError, Denied):
            return None  # refused: the next call will say it
        return None

    def wait_s(self, fault: Fault) -> float:
        """Return how long to send nothing to a server that asks for a pause."""
        return min(fault.after_s, max(self._timeout_s, LOOK_AGAIN_S))

    def _rest_s(self, tries: int) -> float:
        longest_s = min(self._rests.longest_s, self._timeout_s / 8)
        return min(longest_s, self._rests.first_s * 2.0 ** min(tries, 16))


def asks_to_wait(model: str, endpoint: Endpoint, fault: Fault) -> str:
    """Return the warning about a server that asks to wait longer than a call may take."""
    return (
        f"model '{model}': {endpoint.shown} answers {fault.reason} and asks to wait "
        f"{fault.after_s:.0f} s. It gets no calls, and is asked for one token every "
        f"{LOOK_AGAIN_S / 60:.0f} min, for {LONGEST_WAIT_S / 3600:.0f} h at most. If that is too "
        "long, stop the run and start it again later: answers are kept"
    )


def _no_answer(pool: Pool, endpoint: Endpoint, fault: Fault, left_s: float) -> str:
    return (
        f"model '{pool.model}': {endpoint.shown} does not answer ({fault}). It gets no calls and "
        f"is asked for one token; if it does not answer within {left_s:.0f} s it is given up"
    )


def _why_lost(endpoint: Endpoint, fault: Fault, for_s: float) -> str:
    what = {
        TIME_OUT: "takes requests and has answered nothing, not even a request for one token, "
        f"for {for_s:.0f} s: it hangs",
        CONNECTION: f"could not be reached for {for_s:.0f} s ({fault.detail})",
    }.get(fault.reason, f"has answered no request for {for_s:.0f} s (last: {fault})")
    return f"{endpoint.shown} {what}"
