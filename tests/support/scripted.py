"""An `ask` for tests: answers by a function of the call, and keeps every call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from moaa.chat.message import Call, Choice, Reply


class Ask:
    """`answer(call)` gives a text, several texts, a `Reply`, or an exception to raise."""

    def __init__(self, answer: Callable[[Call], Any]) -> None:
        self.answer = answer
        self.calls: list[Call] = []

    async def __call__(self, model, messages, sampling, *, choices=None, logprobs=False) -> Reply:
        call = Call(
            model,
            tuple(deepcopy(list(messages))),
            sampling,
            tuple(choices) if choices else None,
            logprobs,
        )
        self.calls.append(call)
        await asyncio.sleep(0)
        answer = self.answer(call)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            answer = Reply((Choice(answer),))
        return (
            answer if isinstance(answer, Reply) else Reply(tuple(Choice(text) for text in answer))
        )

    def of(self, model: str) -> list[Call]:
        return [call for call in self.calls if call.model == model]


def system(call: Call) -> str:
    return call.messages[0]["content"] if call.messages[0]["role"] == "system" else ""


def last(call: Call) -> str:
    return call.messages[-1]["content"]
