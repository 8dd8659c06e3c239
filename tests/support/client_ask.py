"""An `ask` straight to a client: nothing is journaled or shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moaa.chat.client import Client
from moaa.chat.message import Call, Message, Reply
from moaa.recipe.schema import Sampling


@dataclass(frozen=True, slots=True)
class ClientAsk:
    """Sends each call to the client's engine."""

    client: Client

    async def __call__(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        choices: Sequence[str] | None = None,
        logprobs: bool = False,
    ) -> Reply:
        chosen = tuple(choices) if choices else None
        return await self.client.send(Call(model, tuple(messages), sampling, chosen, logprobs))
