"""A mixture as one of the gateway's models: requests are read, answered over HTTP and counted."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from moaa.gateway.backend import State
from moaa.gateway.body import Body
from moaa.gateway.mixtures.chunks import encoded
from moaa.gateway.mixtures.engines import PATH, Upstream
from moaa.gateway.mixtures.members import Traits
from moaa.gateway.mixtures.proposals import Proposals
from moaa.gateway.mixtures.question import read_question
from moaa.gateway.mixtures.run import MixtureRun, Served
from moaa.gateway.mixtures.settings import OnlineMixture
from moaa.gateway.readiness import STREAM, wait_until_up
from moaa.gateway.relay import Stream
from moaa.gateway.shares import conversation_of
from moaa.gateway.wire import DONE, ApiError, invalid
from moaa.mixture import LATE

if TYPE_CHECKING:
    from moaa.gateway.state import ClientRequest, Gateway

COUNTED: Final = frozenset(
    {LATE, "empty", "not returned", "content filter", "context_length_exceeded", "timeout"}
    | {"model_not_up", "model_asleep", "engine_overloaded", "stream_broken", "bad_gateway"}
)
"""The reasons that may be labels of a metric. Other reasons of engines are counted as `other`."""


class MixtureModel:
    """The mixture `name` of a gateway."""

    def __init__(self, name: str, mixture: OnlineMixture, gateway: Gateway) -> None:
        self.name, self.mixture = name, mixture
        self._gateway = gateway
        models = gateway.config.models
        self._traits = {
            each: Traits(models[each].system_role, models[each].price) for each in mixture.models
        }
        cache = mixture.online.cache
        self._kept = Proposals(cache.entries, cache.ttl_s)

    @property
    def revision(self) -> str:
        """A hash of everything that decides the answers:
        the mixture, and the revisions of its models."""
        backends = self._gateway.backends
        parts = [
            self.mixture.model_dump(mode="json", exclude={"online": {"cache"}}),
            {name: [backends[name].served_name, backends[name].revision] for name in self._traits},
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def state(self) -> State:
        """ready: enough proposers can answer, and a member that aggregates."""
        states = {name: self._gateway.backends[name].state for name in self._traits}
        up = [member for member in self.mixture.proposers if states[member.model] == "ready"]
        enough = sum(member.sampling.n for member in up) >= self.mixture.quorum
        labels = self.mixture.online.fallback
        may_aggregate = [m for m in up if labels is None or m.label in labels]
        if enough and (states[self.mixture.aggregator.model] == "ready" or may_aggregate):
            return "ready"
        return "asleep" if "asleep" in states.values() else "down"

    def card(self) -> dict[str, Any]:
        """Return what /v1/models says about it, besides its name."""
        return {
            "state": self.state,
            "revision": self.revision,
            "mixture": {
                "proposers": [member.label for member in self.mixture.proposers],
                "aggregator": self.mixture.aggregator.label,
                "quorum": self.mixture.quorum,
                "layers": self.mixture.layers,
            },
        }

    def calls(self, body: Body) -> int:
        """Return how many calls to engines a request costs."""
        return self.mixture.calls

    async def respond(self, asked: ClientRequest) -> web.StreamResponse:
        """Answer the request. Raises ApiError only while nothing has been sent."""
        if asked.path != PATH:
            raise invalid(
                f"'{self.name}' is a mixture: it answers only at /v1{PATH}.",
                "model",
                "unsupported_endpoint",
            )
        question = read_question(asked.body.data)
        # Members that are asleep are woken. Once enough of them are up, the request does not wait
        # longer.
        members = [self._gateway.backends[name] for name in sorted(self._traits)]
        await wait_until_up(asked, members, wait=self.state != "ready")
        affinity = conversation_of(asked.caller.name, asked.body.data)
        run = MixtureRun(
            Served(self.name, self.mixture, self._traits, self.revision),
            question,
            Upstream(self._gateway, asked.forwarded, affinity, asked.id),
            kept=self._kept,
            tenant=asked.caller.name,
        )
        headers = {"x-request-id": asked.id, "x-moaa-revision": run.tally.revision}
        headers |= asked.kept_headers
        try:
            if question.streamed:
                return await self._stream(asked, run, headers)
            headers["Content-Type"] = "application/json"
            response = web.Response(body=encoded(await run.whole()), headers=headers)
            asked.keep(self.name, run.tally.revision, run.choices)
            return response
        finally:
            self._count(asked, run)

    async def _stream(
        self, asked: ClientRequest, run: MixtureRun, headers: dict[str, str]
    ) -> web.StreamResponse:
        # A stream that waited until its models were awake has already begun.
        response = asked.response or web.StreamResponse(headers={**headers, **STREAM})
        stream = Stream(self._gateway.now())

        async def write(part: bytes) -> None:
            stream.writing = True
            await response.write(part)
            stream.writing, stream.moved = False, self._gateway.now()

        with self._gateway.moving(stream):
            try:
                async with aclosing(run.streamed()) as parts:
                    async for part in parts:
                        if asked.response is None:
                            asked.response = response
                            await response.prepare(asked.request)
                        if part:
                            await write(part)
                        if run.choices and not stream.last:
                            stream.last = part
                            self._time_first(asked, run)
            except ApiError as error:
                if asked.response is None:
                    raise
                await write(error.event())
            else:
                await write(DONE)
                asked.keep(self.name, run.tally.revision, run.choices)
        return response

    def _time_first(self, asked: ClientRequest, run: MixtureRun) -> None:
        seconds = time.perf_counter() - asked.started
        self._gateway.metrics.first_token.add(seconds, self.name, run.tally.revision)

    def _count(self, asked: ClientRequest, run: MixtureRun) -> None:
        """Count what was used, and which members were missing, however the request ended."""
        for spent in run.tally.members:
            if spent.usage is not None and not spent.shared:
                asked.spend(self.name, spent.model, spent.usage)
        for missing in run.tally.left_out:
            reason = missing.reason
            known = reason in COUNTED or (reason.startswith("HTTP ") and len(reason) == 8)
            self._gateway.metrics.left_out.add(
                self.name, missing.name.partition("#")[0], reason if known else "other"
            )
