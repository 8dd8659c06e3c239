"""The chat client: one `Call` in, one `Reply` out, over the endpoints of its model, with retries.

    async with Client(runtime.calls, ledger) as client:
        client.pool("smol").add(Endpoint("http://127.0.0.1:8000/v1", "smol"))
        reply = await client.send(Call("smol", ({"role": "user", "content": "Hello"},), Sampling()))

Retried: time-outs, broken connections, 408, 409, 425, 429 (its Retry-After is honoured), 5xx,
answers that are empty or garbled. Not retried: 400, 413, 422 (`CallRejected`: this call) and every
other status (`EngineError`: this model).
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from moaa.chat.fault import Fault, shorten
from moaa.chat.message import Call, Reply
from moaa.chat.pool import REST_S, Endpoint, Pool
from moaa.chat.wire import parse_reply, refusal, request_body
from moaa.errors import CallFailed, EngineError
from moaa.ledger import Ledger
from moaa.progress.messages import log
from moaa.recipe.schema import Calls, Sampling

MAX_SERVER_LOSSES = 8
"""Attempts whose server was removed from the pool meanwhile do not count as retries. After this
many the call is given up: it may be what kills the servers."""
NOTICE_S = 1.0
"""How long the last attempt waits for the engines to notice that its server is gone."""
KEEP_ALIVE_S = 4.0
"""Idle connections are closed before vLLM closes them (5 s): a request on a connection that is
being closed is lost."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a client waits, in seconds."""

    backoff_s: float = 0.5
    """Before the k-th retry: a random time up to this times 2^k (full jitter)."""
    max_backoff_s: float = 30.0
    rest_s: float = REST_S
    """How long a server gets no calls after a fault (see `Pool`)."""
    probe_every_s: float = 0.25
    connect_timeout_s: float = 30.0


class Client:
    """Sends calls. A context manager; `pools` has the endpoints by the recipe's model names."""

    def __init__(self, calls: Calls, ledger: Ledger, pace: Pace = Pace()) -> None:
        self._calls = calls
        self._pace = pace
        self._ledger = ledger
        self._session: aiohttp.ClientSession | None = None
        self._addresses: dict[Endpoint, tuple[URL, dict[str, str], str]] = {}
        self.pools: dict[str, Pool] = {}

    def pool(self, model: str) -> Pool:
        """The pool of this model; the first call makes it."""
        if model not in self.pools:
            self.pools[model] = Pool(
                model, self._calls.in_flight, self._calls.timeout_s, self._pace.rest_s
            )
        return self.pools[model]

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # No limit: the pools bound what is in flight.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=self._calls.timeout_s,
                sock_connect=min(self._pace.connect_timeout_s, self._calls.timeout_s),
            ),
            # Compressing an answer costs more than sending it.
            skip_auto_headers=("Accept", "Accept-Encoding"),
            headers={"User-Agent": "moaa", "Content-Type": "application/json"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def send(self, call: Call) -> Reply:
        """The reply to a call. Raises CallRejected, CallFailed (no retry left), or EngineError (the
        model is not served)."""
        pool, use = self.pool(call.model), self._ledger.model(call.model)
        faults = lost = 0
        while True:
            endpoint = await pool.acquire()
            start = time.perf_counter()
            try:
                reply = await self._attempt(endpoint, call)
            except Fault as fault:
                last = fault
                wait_s = self._backoff_s(faults + lost)
                pool.failed(
                    endpoint,
                    fault.detail,
                    after_s=fault.after_s,
                    reached=fault.reason != "connection",
                )
            except Exception:
                use.failed += 1
                pool.answered(endpoint)
                raise
            else:
                pool.answered(endpoint)
                use.calls += 1
                use.prompt_tokens += reply.prompt_tokens
                use.completion_tokens += reply.completion_tokens
                use.truncated += sum([choice.cut for choice in reply.choices])
                self._count_thoughts(call.model, reply)
                return reply
            finally:
                use.seconds += time.perf_counter() - start
                pool.release(endpoint)
            final = faults == self._calls.retries
            await asyncio.sleep(min(wait_s, NOTICE_S) if final else wait_s)
            if endpoint in pool.endpoints:
                faults += 1
            else:
                lost += 1
            if faults > self._calls.retries or lost > MAX_SERVER_LOSSES:
                use.failed += 1
                raise CallFailed(
                    last.reason, f"{last.detail} (model '{call.model}', {faults + lost} attempts)"
                )
            use.retries += 1

    def _count_thoughts(self, model: str, reply: Reply) -> None:
        """Count the answers whose text held reasoning; the first of a model is said."""
        if not (found := sum([choice.thought for choice in reply.choices])):
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
        longest_s = self._pace.backoff_s * 2 ** min(attempts, 16)
        return random.uniform(0, min(self._pace.max_backoff_s, longest_s))

    async def ready(self, model: str, timeout_s: float) -> None:
        """Wait until every endpoint of the model's pool has given a one-token answer. Raises
        EngineError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        endpoints = list(self.pool(model).endpoints)
        if not endpoints:
            raise EngineError(f"model '{model}' has no endpoint that could answer")
        for endpoint in endpoints:
            await self.answers(endpoint, model, max(deadline - time.monotonic(), 0.0))

    async def answers(self, endpoint: Endpoint, model: str, timeout_s: float) -> None:
        """Wait until this endpoint, in a pool or not, has given a one-token answer. Raises
        EngineError after `timeout_s`."""
        call = Call(
            model, ({"role": "user", "content": "Hello"},), Sampling(temperature=0, max_tokens=1)
        )
        shown = (self._addresses.get(endpoint) or self._address(endpoint, model))[2]
        last_fault = "none"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await self._attempt(endpoint, call)
                        return
                    except Fault as fault:
                        last_fault = str(fault)
                    await asyncio.sleep(self._pace.probe_every_s)
        except TimeoutError:
            raise EngineError(
                f"model '{model}': {shown} gave no answer to a one-token request in "
                f"{timeout_s:.0f} s. Its last error: {last_fault}"
            ) from None

    async def _attempt(self, endpoint: Endpoint, call: Call) -> Reply:
        assert self._session is not None, "the client is used outside its `async with`"
        url, headers, shown = self._addresses.get(endpoint) or self._address(endpoint, call.model)
        body = request_body(call, endpoint.model)
        start = time.perf_counter()
        try:
            response = await self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            )
            answer = await response.read()
        except aiohttp.ConnectionTimeoutError:
            raise Fault(
                "connection", f"no connection within {time.perf_counter() - start:.0f} s"
            ) from None
        except TimeoutError:
            raise Fault(
                "time-out", f"no answer within {time.perf_counter() - start:.0f} s"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Fault("connection", shorten(str(error) or type(error).__name__)) from None
        if endpoint.key:  # some servers repeat it in their errors
            answer = answer.replace(endpoint.key.strip().encode(), b"***")
        if response.status == 200:
            return parse_reply(call, answer, time.perf_counter() - start)
        after_s = _retry_after(response.headers.get("Retry-After"))
        if after_s > self._calls.timeout_s:
            raise EngineError(
                f"model '{call.model}': {shown} answered HTTP {response.status} and asks to wait "
                f"{after_s:.0f} s, more than runtime.calls.timeout_s = "
                f"{self._calls.timeout_s:.0f}. Run again after that time: answers are kept."
            )
        raise refusal(response.status, answer, after_s, call.model, shown)

    def _address(self, endpoint: Endpoint, model: str) -> tuple[URL, dict[str, str], str]:
        """Where to post, with which headers, and the address to show: without user, password and
        query, which may be secret."""
        try:
            url = URL(endpoint.url.rstrip("/") + "/chat/completions")
            if url.scheme not in ("http", "https") or not url.host:
                raise ValueError("it must start with http:// or https:// and a host")
        except ValueError as error:
            raise EngineError(
                f"model '{model}': `endpoint.url` is '{endpoint.url}', which is not an address: "
                f"{error}"
            ) from None
        # Keys that come from files end in a newline, which a header must not contain.
        headers = {"Authorization": f"Bearer {endpoint.key.strip()}"} if endpoint.key else {}
        self._addresses[endpoint] = found = url, headers, str(url.with_user(None).with_query(None))
        return found


def _retry_after(value: str | None) -> float:
    """The seconds that a Retry-After header asks for (a number or a date); 0 without one."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
