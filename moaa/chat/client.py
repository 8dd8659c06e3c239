"""The chat client: takes a `Call`, returns a `Reply`, with retries over the endpoints of the model.

    async with Client(runtime.calls, ledger) as client:
        client.pool("smol").add(Endpoint("http://127.0.0.1:8000/v1", "smol"))
        reply = await client.send(Call("smol", ({"role": "user", "content": "Hello"},), Sampling()))

Retried: time-outs, broken connections, 408, 409, 424, 425, 429 (its Retry-After is honoured), 5xx,
and answers that are empty, garbled or broken off. Not retried: 400, 413, 422 (`CallRejected`: this
call), 403 and 451 of a server that answers other requests (the same), and every other status
(`EngineError`: this model). A server that may be broken gets no calls until a check has got an
answer from it (`moaa.chat.health`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Self

from moaa.chat.fault import Denied, Fault
from moaa.chat.form import LENGTH, NO_ROOM, RENAMED, refused_field
from moaa.chat.health import Health, Rests
from moaa.chat.http import Http
from moaa.chat.message import Call, Reply, probe
from moaa.chat.pacing import Pacing
from moaa.chat.pool import Endpoint, Pool
from moaa.chat.pooling import parse_pooled, pooling_body
from moaa.chat.prefix_cache import PrefixCaches
from moaa.chat.wire import REFUSED, parse_reply, refusal, request_body
from moaa.errors import CallFailed, CallRejected, EngineError
from moaa.ledger import Ledger
from moaa.progress.messages import log
from moaa.recipe.places import ENDPOINT
from moaa.recipe.schema import Calls

MAX_SERVER_LOSSES: Final = 8
"""An attempt whose server died does not count as a retry. After this many of them the call is given
up: it may be what kills the servers."""

MOST_BUSY: Final = 50
"""An attempt at an overloaded server does not count as a retry either. After this many of them it
does, because some servers answer like this to a request that they will never take. With the growing
pauses that is more than ten minutes."""

SURELY: Final = 2
"""After this many answers with only the end of a thought,
the model's prompt is known to open it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a client waits, in seconds."""

    backoff_s: float = 0.5
    """Before the k-th retry: a random time up to this value times 2^k (full jitter)."""
    max_backoff_s: float = 30.0
    rests: Rests = field(default_factory=Rests)
    """Time between the requests of a check (see `moaa.chat.health`)."""
    probe_every_s: float = 0.25
    connect_timeout_s: float = 30.0


class Client:
    """Sends calls. A context manager; `pools` has the endpoints by the recipe's model names."""

    def __init__(self, calls: Calls, ledger: Ledger, timing: Timing = Timing()) -> None:
        self._calls = calls
        self._timing = timing
        self._ledger = ledger
        self._http = Http(calls.timeout_s, timing.connect_timeout_s)
        self._health = Health(self._probe, calls.timeout_s, timing.rests)
        self._opened_thoughts: Counter[str] = Counter()
        """For each model: answers that had only the end of a thought."""
        self.pools: dict[str, Pool] = {}

    def pool(self, model: str) -> Pool:
        """Return the pool of this model; the first call creates it."""
        if model not in self.pools:
            self.pools[model] = Pool(model, self._calls.in_flight or ENDPOINT)
        return self.pools[model]

    async def __aenter__(self) -> Self:
        await self._http.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._health.close()
        await self._http.close()

    async def send(self, call: Call) -> Reply:
        """Return the reply to a call. Raises CallRejected, CallFailed (no retry left), or
        EngineError (the model is not served)."""
        pool, use = self.pool(call.model), self._ledger.model(call.model)
        tried: list[Endpoint] = []
        busy = 0
        while True:
            endpoint = await pool.acquire()
            started, start = asyncio.get_running_loop().time(), time.perf_counter()
            try:
                reply = await self._attempt(endpoint, call)
            except Fault as fault:
                last = fault
                if fault.busy and busy < MOST_BUSY:
                    busy += 1
                else:
                    tried.append(endpoint)
                if fault.alive:
                    self._health.answered(pool, endpoint)
                else:
                    self._health.doubt(pool, endpoint, fault, started)
            except Denied as denied:
                use.failed += 1
                raise await self._meaning_of(denied, endpoint, call.model) from None
            except Exception:
                use.failed += 1
                self._health.answered(pool, endpoint)
                raise
            else:
                self._health.answered(pool, endpoint)
                reply = self._without_open_thoughts(call.model, reply)
                self._count(call.model, reply)
                return reply
            finally:
                use.seconds += time.perf_counter() - start
                pool.release(endpoint)
            if not await self._may_retry(pool, tried):
                use.failed += 1
                raise CallFailed(
                    last.reason,
                    f"{last.detail} (model '{call.model}', {len(tried) + busy} attempts)",
                )
            use.retries += 1
            if last.alive or last.busy:
                self._ledger.events[f"asked again after: {last.reason}"] += 1
            await asyncio.sleep(self._backoff_s(len(tried) + busy - 1))

    async def _may_retry(self, pool: Pool, tried: list[Endpoint]) -> bool:
        """Return whether a call that failed at these endpoints may be tried again. Failures of
        servers that died do not count, so the last attempt waits until that is known."""

        def here() -> list[Endpoint]:
            return [each for each in tried if each in pool.endpoints and not each.lost.is_set()]

        if len(here()) > self._calls.retries:
            for endpoint in set(here()):
                await self._health.settled(endpoint)
            if pool.failure is not None:
                raise pool.failure
        faults = len(here())
        return faults <= self._calls.retries and len(tried) - faults <= MAX_SERVER_LOSSES

    async def _meaning_of(self, denied: Denied, endpoint: Endpoint, model: str) -> Exception:
        """Return what a denial means: this request, if the server answers another one; else the
        model."""
        try:
            await self.answers(endpoint, model, self._calls.timeout_s)
        except EngineError:
            return denied.failed
        return denied.rejected

    def _count(self, model: str, reply: Reply) -> None:
        use = self._ledger.model(model)
        use.calls += 1
        use.prompt_tokens += reply.prompt_tokens
        use.completion_tokens += reply.completion_tokens
        use.truncated += sum([choice.cut for choice in reply.choices])
        self._count_thoughts(model, reply)

    def _without_open_thoughts(self, model: str, reply: Reply) -> Reply:
        """Return the reply of a model whose prompt opens its thoughts, without answers that were
        cut: an answer without the end of a thought is only a thought."""
        self._opened_thoughts[model] += sum(
            [choice.thought == "opened by the prompt" for choice in reply.choices]
        )
        if self._opened_thoughts[model] < SURELY:
            return reply
        choices = [
            replace(choice, text="", tokens=None, thought="opened by the prompt")
            if choice.cut and not choice.thought
            else choice
            for choice in reply.choices
        ]
        return replace(reply, choices=tuple(choices))

    def _count_thoughts(self, model: str, reply: Reply) -> None:
        """Count the answers whose text had reasoning; report the first one of a model."""
        if not (found := sum([bool(choice.thought) for choice in reply.choices])):
            return
        event = f"answers of {model} with reasoning in their text, which was taken out"
        if not self._ledger.events[event]:
            log.warning(
                f"model '{model}' writes its reasoning into its answers. It is taken out of every "
                "answer. vLLM does that itself if it is started with `--reasoning-parser` "
                f"(models.{model}.engine_args)."
            )
        self._ledger.events[event] += found

    def _backoff_s(self, attempts: int) -> float:
        longest_s = self._timing.backoff_s * 2 ** min(attempts, 16)
        return random.uniform(0, min(self._timing.max_backoff_s, longest_s))

    def prefix_caches(self) -> PrefixCaches:
        """The counter of hits in the servers' prefix caches."""
        return PrefixCaches(self.pools, self._http.metrics, self._ledger)

    async def pace(self) -> None:
        """Adapt the number of requests in flight to the servers' load, until cancelled."""
        await Pacing(self.pools, self._http.metrics, self._ledger).run()

    async def ready(self, model: str, timeout_s: float, *, system: str | None = None) -> None:
        """Wait until every endpoint of the model's pool answers, as `answers` does."""
        deadline = time.monotonic() + timeout_s
        endpoints = list(self.pool(model).endpoints)
        if not endpoints:
            raise EngineError(f"model '{model}' has no endpoint")
        for endpoint in endpoints:
            left_s = max(deadline - time.monotonic(), 0.0)
            await self.answers(endpoint, model, left_s, system=system)

    async def answers(
        self,
        endpoint: Endpoint,
        model: str,
        timeout_s: float,
        *,
        or_is_busy: bool = False,
        system: str | None = None,
    ) -> None:
        """Wait until this endpoint, in a pool or not, has given a one-token answer (`or_is_busy`:
        or says that it is overloaded). Raises EngineError after `timeout_s`, or if it refuses the
        request, for example because its model has no chat template."""
        last_fault = "none"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await self._attempt(endpoint, probe(model, system))
                        return
                    except Fault as fault:
                        if fault.busy and or_is_busy:
                            return
                        last_fault, after_s = str(fault), fault.after_s
                    except Denied as denied:
                        raise denied.failed from None
                    except CallRejected as rejected:
                        if NO_ROOM in rejected.detail:
                            return  # a model that thinks first: one token is not enough
                        raise EngineError(
                            f"model '{model}': {endpoint.shown} refuses a one-token request: "
                            f"{rejected}"
                        ) from rejected
                    await asyncio.sleep(max(self._timing.probe_every_s, after_s))
        except TimeoutError:
            raise EngineError(
                f"model '{model}': {endpoint.shown} gave no answer to a one-token request in "
                f"{timeout_s:.0f} s. Its last error: {last_fault}"
            ) from None

    async def _probe(self, endpoint: Endpoint, model: str, timeout_s: float) -> None:
        await self._attempt(endpoint, probe(model), timeout_s)

    async def _attempt(
        self, endpoint: Endpoint, call: Call, timeout_s: float | None = None
    ) -> Reply:
        task, form = endpoint.task, endpoint.form
        chat = task == "chat"
        body = (
            request_body(call, endpoint.model, form)
            if chat
            else pooling_body(task, call, endpoint.model)
        )
        answer = await self._http.post(endpoint, call.model, body, timeout_s)
        if answer.status == 200:
            if not chat:
                return parse_pooled(task, call, answer.body, answer.seconds)
            for field in form.refused:
                self._ledger.events[f"answers of {call.model} without {field}: refused"] += 1
            return parse_reply(call, answer.body, answer.seconds)
        field = refused_field(answer.body) if chat and answer.status in REFUSED else ""
        if field and field not in form.refused:
            self._give_up(field, endpoint, call.model)
            return await self._attempt(endpoint, call, timeout_s)
        raise refusal(answer.status, answer.body, answer.after_s, call, endpoint.shown)

    def _give_up(self, field: str, endpoint: Endpoint, model: str) -> None:
        """Write later requests to this server without the field."""
        if field in endpoint.form.refused:  # another request has found it out
            return
        endpoint.form = endpoint.form.without(field)
        instead = f"{RENAMED} is sent instead" if field == LENGTH else "the server's own is used"
        log.warning(f"model '{model}': {endpoint.shown} refuses the field {field}; {instead}")
