"""The proposers of one request: asked, counted, and shown if the client wants to see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from moaa.chat.fault import Fault
from moaa.chat.message import Call, Message, Reply, without_system
from moaa.chat.wire import parse_reply, request_fields
from moaa.errors import CallError, CallFailed, CallRejected, without_stop
from moaa.gateway.mixtures.chunks import Assembled
from moaa.gateway.mixtures.engines import Engines
from moaa.gateway.mixtures.preview import Preview
from moaa.gateway.mixtures.proposals import Answered, Proposals
from moaa.gateway.mixtures.tally import Spent, Tally
from moaa.gateway.relay import usage_in
from moaa.gateway.wire import ApiError, invalid, of_engine
from moaa.recipe import Member
from moaa.recipe.serving import Price


@dataclass(frozen=True, slots=True)
class Traits:
    """What a mixture needs to know about a model."""

    system_role: bool = True
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class Proposers:
    """Asks the proposers of one request. `tenant`: whose kept proposals may be used again."""

    engines: Engines
    traits: Mapping[str, Traits]
    kept: Proposals
    tally: Tally
    tenant: str
    preview: Preview | None = None

    async def __call__(self, member: Member, messages: Sequence[Message], layer: int) -> Reply:
        """Return the reply of a proposer (see `moaa.mixture.Consult`).
        Raises CallError without one."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            seen = seen_by(self.traits[member.model], messages)
            call = Call(member.model, seen, member.sampling)
            answered, shared = await self.kept.get(
                self.tenant,
                call,
                lambda: self._ask(call, member, layer),
                share=self.preview is None,
            )
        except (ApiError, Fault, CallError) as error:
            raise _missing(error) from error
        spent = Spent(
            member.label,
            member.model,
            "proposer",
            layer,
            loop.time() - started,
            answered.reply.choices[0].finish_reason,
            answered.usage,
            shared,
            self.traits[member.model].price,
        )
        self.tally.members.append(spent)
        if self.preview:
            for at, choice in enumerate(answered.reply.choices):
                if shared:
                    self.preview.says(name_of(member, at), choice.text)
                self.preview.ends(name_of(member, at), {"done": spent.to_json()})
        return answered.reply

    async def _ask(self, call: Call, member: Member, layer: int) -> Answered:
        fields = request_fields(call)
        start = asyncio.get_running_loop().time()
        if self.preview is None:
            body = await self.engines.whole(call.model, fields)
        else:
            body = await self._streamed(self.preview, call, member, fields)
        seconds = asyncio.get_running_loop().time() - start
        return Answered(parse_reply(call, body, seconds), usage_in(body))

    async def _streamed(
        self, preview: Preview, call: Call, member: Member, fields: dict[str, Any]
    ) -> bytes:
        """Return the body of an answer that was streamed and shown as it came."""
        whole, usage = Assembled(), None
        async with aclosing(self.engines.chunks(call.model, fields)) as chunks:
            async for data in chunks:
                chunk = read_chunk(data, call.model)
                usage = chunk.get("usage") or usage
                for choice in chunk.get("choices") or ():
                    whole.add(choice)
                    text = (choice.get("delta") or {}).get("content") or ""
                    if isinstance(text, str):  # not in parts
                        preview.says(name_of(member, choice.get("index") or 0), text)
        return json.dumps({"choices": whole.choices, "usage": usage}).encode()


def seen_by(traits: Traits, messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages for this model: some have no system role. Raises ApiError 400 if the
    model cannot take them."""
    try:
        return tuple(messages if traits.system_role else without_system(messages))
    except ValueError as error:
        raise invalid(
            f"A member has no system role, and {without_stop(error)}.", "messages"
        ) from None


def name_of(member: Member, index: int) -> str:
    """Return the name of a proposal, as in `moaa.mixture`."""
    return member.label if member.sampling.n == 1 else f"{member.label}#{index + 1}"


def read_chunk(data: bytes, model: str) -> dict[str, Any]:
    """Return the chunk of a stream. Raises ApiError if it is an error, or not a chunk."""
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        chunk = None
    if not isinstance(chunk, dict):
        raise ApiError(502, f"The server of '{model}' sent a broken chunk.", "bad_gateway")
    if (error := chunk.get("error")) is not None:
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
        raise of_engine(status, data, model)
    if not _has_form(chunk.get("choices")):
        raise ApiError(502, f"The server of '{model}' sent a broken chunk.", "bad_gateway")
    return chunk


def _has_form(choices: Any) -> bool:
    """Return whether these are the choices of a chunk, as far as others rely on it."""
    return choices is None or (
        isinstance(choices, list)
        and all(
            isinstance(each, dict)
            and isinstance(each.get("index"), int | None)
            and isinstance(each.get("delta"), dict | None)
            for each in choices
        )
    )


def _missing(error: ApiError | Fault | CallError) -> CallError:
    """Return why a proposer has no answer, as a short fixed word to count."""
    if isinstance(error, CallError):
        return error
    if isinstance(error, Fault):
        return CallFailed(error.reason, error.detail)
    kind = CallRejected if error.status in (400, 413, 422) else CallFailed
    return kind(error.code or f"HTTP {error.status}", error.message)
