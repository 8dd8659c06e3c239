"""Requests for scores and vectors, against a server that speaks vLLM's form."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest

from moaa.chat.client import Client
from moaa.chat.fault import Fault
from moaa.chat.message import Call, Message
from moaa.chat.pool import Endpoint
from moaa.chat.pooling import Task, parse_pooled
from moaa.errors import CallRejected, EngineError
from moaa.ledger import Ledger
from moaa.recipe import Calls, Sampling
from tests.support.engine_answers import pooled
from tests.support.engine_server import EngineServer

CALL = Call(
    "rm",
    (Message(role="user", content="Why?"), Message(role="assistant", content="So.")),
    Sampling(),
)


async def send(server: EngineServer, task: Task, ledger: Ledger) -> str:
    async with Client(Calls(retries=0), ledger) as client:
        endpoint = Endpoint(server.url, "rm", task=task)
        await client.answers(endpoint, "rm", 5)
        client.pool("rm").add(endpoint)
        return (await client.send(CALL)).text


async def test_a_score_is_the_logit_and_the_first_answer_is_a_score() -> None:
    ledger = Ledger()
    with EngineServer("rm") as server:
        text = await send(server, "reward", ledger)
    (first, _), (path, body) = server.pooled
    assert (first, path) == ("/classify", "/classify")
    assert float(text) == pooled("/classify", body)["data"][0]["probs"][0]
    assert body["messages"] == list(CALL.messages)
    assert body["use_activation"] is False
    assert "truncate_prompt_tokens" not in body
    assert body["chat_template_kwargs"] == {"date_string": "26 Jul 2024"}
    assert server.requests == []
    assert ledger.models["rm"].prompt_tokens == 2


async def test_a_vector_comes_as_base64_of_float32() -> None:
    with EngineServer("rm") as server:
        text = await send(server, "embed", Ledger())
    path, body = server.pooled[-1]
    assert path == "/pooling"
    assert (body["task"], body["use_activation"]) == ("embed", False)
    assert len(struct.unpack("<4f", base64.b64decode(text))) == 4


async def test_a_conversation_that_is_too_long_is_rejected_with_its_reason() -> None:
    with EngineServer("rm") as server:
        server.refuse = lambda body: len(body["messages"]) == 2
        with pytest.raises(CallRejected) as caught:
            await send(server, "reward", Ledger())
    assert caught.value.reason == "context length"


async def test_a_server_of_another_model_is_no_reward_model() -> None:
    with EngineServer("chat") as server, pytest.raises(EngineError, match="404"):
        await send(server, "reward", Ledger())


def read(task: Task, found: Any) -> str:
    return parse_pooled(task, CALL, json.dumps(found).encode(), 0.0).text


@pytest.mark.parametrize(
    ("task", "found"),
    [
        ("reward", {}),
        ("reward", {"data": []}),
        ("reward", {"data": [{"probs": ["high"]}]}),
        ("reward", {"data": [{"probs": [float("nan")]}]}),
        ("reward", {"data": [{"probs": []}]}),
        ("reward", {"data": [{"probs": "7"}]}),
        ("reward", {"data": [{"probs": [True]}]}),
        ("reward", {"data": [{"probs": [10**400]}]}),
        ("reward", {"data": [{"probs": [0.5]}], "usage": {"prompt_tokens": math.inf}}),
        ("reward", {"data": [{"probs": [0.5]}], "usage": {"prompt_tokens": -1}}),
        ("embed", {"data": [{"data": [0.1, 0.2]}]}),
        ("embed", {"data": [{"data": ""}]}),
        ("embed", {"data": [{"data": "no base64"}]}),
        ("embed", {"data": [{"data": "AAAA"}]}),  # three bytes
        ("embed", {"data": [{"data": base64.b64encode(struct.pack("<2f", 1, math.nan)).decode()}]}),
    ],
)
def test_an_answer_without_a_number_is_tried_again(task: Task, found: Any) -> None:
    with pytest.raises(Fault, match="without a") as caught:
        read(task, found)
    assert caught.value.alive


@pytest.mark.parametrize("task", ["reward", "embed"])
def test_an_answer_nested_without_end_is_tried_again(task: Task) -> None:
    with pytest.raises(Fault, match="without a"):
        parse_pooled(task, CALL, b"[" * 60_000, 0.0)


def test_a_model_with_several_labels_is_no_reward_model() -> None:
    with pytest.raises(EngineError, match="gives 2 numbers"):
        read("reward", {"data": [{"probs": [0.1, 0.9]}]})
