"""The state of one running gateway: backends, callers, metrics, and the connections to engines."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Final

import aiohttp
from aiohttp import web

from moaa.chat.http import KEEP_ALIVE_S
from moaa.errors import RecipeError
from moaa.gateway.access import Access, Caller
from moaa.gateway.backend import Backend
from moaa.gateway.body import Body
from moaa.gateway.checks import Checks
from moaa.gateway.cluster_link import ClusterLink
from moaa.gateway.config import GatewayConfig
from moaa.gateway.feedback.answer_reader import AnswerReader
from moaa.gateway.feedback.records import Records
from moaa.gateway.metrics import Metrics
from moaa.gateway.relay import Stream, Usage
from moaa.gateway.slots import Slots
from moaa.gateway.traffic_split import TrafficSplit
from moaa.gateway.wire import ApiError
from moaa.kubernetes.api import Cluster
from moaa.progress.messages import log, say
from moaa.store import Store

LOOK_EVERY_S: Final = 5.0
PASSED_ON: Final = ("traceparent", "tracestate", "OpenAI-Beta")
"""Headers of a request that are passed on to engines. A client's key is never among them."""
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


class Gateway:
    """The state of one gateway. With `async with` it opens and closes the connections."""

    def __init__(self, config: GatewayConfig, cluster: Cluster | None = None) -> None:
        """`cluster`: where the Services are. Default: the cluster of this process."""
        self.config = config
        self.metrics = Metrics()
        self.access = Access(config, lambda key, limit: self.metrics.refused.add(key, limit))
        self.backends: dict[str, Backend] = {
            name: Backend(
                name,
                model.endpoints,
                served_name=model.served_name,
                key=os.environ.get(model.key_env) if model.key_env else None,
                in_flight=model.in_flight,
                revision=model.revision,
            )
            for name, model in config.models.items()
        }
        self.promoted = {
            name: TrafficSplit(
                name,
                {slot: self.backends[model] for slot, model in each.slots.items()},
                Slots().sharing(each.share_of_b, "the gateway's file", ""),
                empty=each.config_map is not None,
            )
            for name, each in config.promoted.items()
        }
        for name, promoted in self.promoted.items():
            promoted.on_roll_back.append(partial(self._rolled_back, name))
        self.cluster_link: ClusterLink | None = None
        self._cluster = cluster
        self.checks = Checks(self.backends, lambda: self.http)
        self.feedback: Records | None = None
        if kept := config.feedback:
            self.feedback = Records(kept, Store.of(kept.store), self.metrics.feedback.add)
        self._bad_keys = ""
        """The current problem of the file of keys, if any."""
        self.draining = False
        """Whether the gateway is stopping: it accepts no more requests."""
        self.requests: set[ClientRequest] = set()
        """The requests in progress."""
        self.idle = asyncio.Event()
        """Set while there are no requests."""
        self.idle.set()
        self._streams: dict[Stream, asyncio.Task[Any]] = {}

    async def __aenter__(self) -> Gateway:
        times = self.config.times
        self.http = aiohttp.ClientSession(
            # No limit: the backends and the engines bound what is in flight. Idle connections are
            # closed earlier than vLLM would close them.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Answers are passed on as they are, and compressing costs more than sending.
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type"),
            headers={"User-Agent": "moaa-gateway"},
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=times.connect_s, sock_read=times.idle_s
            ),
            read_bufsize=1 << 16,
        )
        made = ClusterLink.of(self.config, self.backends, self.promoted, self._cluster)
        if made is not None:
            self.cluster_link = made
            await made.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self.cluster_link is not None:
            await self.cluster_link.close()
        await self.checks.close()
        if self.feedback is not None:
            await self.feedback.close()
        await self.http.close()

    def _rolled_back(self, name: str, revision: str, reason: str) -> None:
        self.metrics.rollbacks.add(name, revision)

    def now(self) -> float:
        """The loop's clock."""
        return asyncio.get_running_loop().time()

    def background(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return the tasks that run while the gateway runs."""
        on_cluster = self.cluster_link.background() if self.cluster_link is not None else []
        feedback = [self.feedback.run] if self.feedback is not None else []
        return [self.checks.watch, self._look_after, *on_cluster, *feedback]

    async def _look_after(self) -> None:
        """Cut off clients that do not read, and measure how late the loop is."""
        while True:
            before = self.now()
            await asyncio.sleep(LOOK_EVERY_S)
            self.metrics.loop_lag.set(to=self.now() - before - LOOK_EVERY_S)
            self._read_keys()
            for stream, task in list(self._streams.items()):
                if stream.writing and self.now() - stream.moved > self.config.times.idle_s:
                    task.cancel()

    def _read_keys(self) -> None:
        try:
            if self.access.read_keys():
                say("gateway: the file of keys was read again")
            self._bad_keys = ""
        except RecipeError as error:
            if str(error) != self._bad_keys:
                log.error(f"gateway: the keys stay unchanged: {error}")
            self._bad_keys = str(error)

    @contextmanager
    def in_progress(self, asked: ClientRequest) -> Iterator[None]:
        """List this request as in progress while the context lasts."""
        self.requests.add(asked)
        self.idle.clear()
        try:
            yield
        finally:
            self.requests.discard(asked)
            if not self.requests:
                self.idle.set()

    @contextmanager
    def moving(self, stream: Stream) -> Iterator[None]:
        """Check that the client of this stream reads while the context lasts."""
        task = asyncio.current_task()
        assert task is not None
        self._streams[stream] = task
        try:
            yield
        finally:
            del self._streams[stream]


@dataclass(eq=False)
class ClientRequest:
    """One request of a client. `path`: the endpoint's, without `/v1`. `started`: when its body had
    arrived (`time.perf_counter`)."""

    gateway: Gateway
    request: web.Request
    id: str
    path: str
    caller: Caller
    body: Body
    started: float = field(default_factory=time.perf_counter)
    response: web.StreamResponse | None = None
    """The answer, after its headers were sent."""

    @cached_property
    def forwarded(self) -> dict[str, str]:
        """The headers that are passed on to an engine."""
        given = self.request.headers
        found = {name: given[name] for name in PASSED_ON if name in given}
        return {"Content-Type": "application/json", **found, "X-Request-Id": self.id}

    @cached_property
    def answer_reader(self) -> AnswerReader | None:
        """What reads the answer if it is to be kept: the key has agreed, and the request does not
        say `store: false`."""
        records = self.gateway.feedback
        if (
            records is None
            or not self.caller.rights.feedback
            or self.path != "/chat/completions"
            or self.body.data.get("store") is False
            or not records.takes(self.id)
        ):
            return None
        return AnswerReader()

    @property
    def kept_headers(self) -> dict[str, str]:
        """The header that tells a client that its question and answer are kept and can be rated."""
        return {} if self.answer_reader is None else {"x-moaa-feedback": "kept"}

    def keep(self, model: str, revision: str | None, choices: list[dict[str, Any]]) -> None:
        """Keep the question and its answer, after all of it was sent."""
        if self.answer_reader is not None and self.gateway.feedback is not None:
            self.gateway.feedback.answered(
                self.caller.name, self.id, model, revision, self.body.data.get("messages"), choices
            )

    @property
    def ends_without_done(self) -> bool:
        """Whether streams of this endpoint end without `[DONE]`."""
        return self.path == "/responses"

    def last_event(self, error: ApiError) -> bytes:
        """Return the error as the end of a stream that has begun."""
        return error.response_event() if self.ends_without_done else error.event()

    def counts_usage(self, model: str) -> bool:
        """Whether the gateway must ask the engine for the tokens of a stream:
        the client did not."""
        body = self.body
        if not body.streamed or body.wants_usage or self.ends_without_done:
            return False
        configured = self.gateway.config.models.get(model)
        return bool(
            configured and (configured.count_tokens or configured.price)
        ) or self.gateway.access.counts_tokens(self.caller)

    def spend(self, model: str, member: str, usage: Usage) -> None:
        """Count the tokens that `member` used for an answer of `model`."""
        metrics = self.gateway.metrics
        for kind, count in (
            ("prompt", usage.prompt),
            ("completion", usage.completion),
            ("cached", usage.cached),
        ):
            if count:
                metrics.tokens.add(model, member, kind, by=count)
        configured = self.gateway.config.models.get(member)
        if configured and (price := configured.price):
            cost = usage.prompt * price.prompt + usage.completion * price.completion
            metrics.dollars.add(model, member, by=cost / 1e6)
        self.gateway.access.spend(self.caller, usage.total)


def request_id(request: web.Request) -> str:
    """Return the client's own id of a request if it is short and harmless; else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
