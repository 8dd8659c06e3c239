"""Hosted models that refuse usual fields: asked once more without, and counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web

from moaa.chat.client import Client
from moaa.chat.form import refused_field
from moaa.chat.message import Call
from moaa.chat.pool import Endpoint
from moaa.errors import CallRejected
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls, Sampling
from tests.support.engine_server import EngineServer, text

CALL = Call("gpt", ({"role": "user", "content": "Hello"},), Sampling(temperature=0, max_tokens=9))
SAID = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
    "'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model. Only the "
    "default (1) value is supported.",
    "top_p": "Unsupported parameter: 'top_p' is not supported with this model.",
}


def error(field: str) -> dict[str, Any]:
    code = "unsupported_value" if field == "temperature" else "unsupported_parameter"
    return {"message": SAID[field], "type": "invalid_request_error", "param": field, "code": code}


async def strict(request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
    """Refuses the first field that a reasoning model does not take; else the server answers."""
    for field in SAID:
        if field in body:
            return web.json_response({"error": error(field)}, status=400)
    return None


@pytest.fixture
def server() -> Iterator[EngineServer]:
    with EngineServer("gpt") as found:
        yield found


@pytest.fixture
async def client(server: EngineServer) -> AsyncIterator[Client]:
    async with Client(Calls(timeout_s=5, retries=0), Ledger()) as made:
        made.pool("gpt").add(Endpoint(server.url, "gpt"))
        yield made


async def test_fields_that_are_refused_are_given_up_and_counted(
    server: EngineServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail(strict, times=100)
    assert (await client.send(CALL)).text
    assert len(server.requests) == 4, "one more for each field"
    last = server.requests[-1]
    assert last["max_completion_tokens"] == 9
    assert not {"max_tokens", "temperature", "top_p"} & last.keys()
    await asyncio.gather(*(client.send(CALL) for _ in range(5)))
    assert len(server.requests) == 9, "learnt for all later requests"
    events = client._ledger.events
    assert events["answers of gpt without temperature: refused"] == 6
    assert events["answers of gpt without max_tokens: refused"] == 6
    assert client._ledger.model("gpt").failed == 0
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert "max_completion_tokens is sent instead" in said[0]


async def test_many_requests_in_flight_learn_it_once(server: EngineServer, client: Client) -> None:
    server.fail(strict, times=100)
    server.delay_s = 0.02
    await asyncio.gather(*(client.send(CALL) for _ in range(8)))
    (endpoint,) = client.pool("gpt").endpoints
    assert endpoint.form.refused == ("max_tokens", "temperature", "top_p")


async def test_a_server_that_refuses_it_again_is_believed(
    server: EngineServer, client: Client
) -> None:
    server.fail(text(json.dumps({"error": error("temperature")}), 400), times=3)
    with pytest.raises(CallRejected, match="Only the default"):
        await client.send(CALL)
    assert len(server.requests) == 2


async def test_a_model_that_thinks_first_is_up_though_one_token_is_too_few(
    server: EngineServer, client: Client
) -> None:
    server.answers_probes = False
    said = "Could not finish the message because max_tokens or model output limit was reached."
    server.fail(text(json.dumps({"error": {"message": said, "code": None}}), 400))
    await client.answers(client.pool("gpt").endpoints[0], "gpt", 5)
    assert len(server.requests) == 1, "it is not asked again"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (json.dumps({"error": error("max_tokens")}), "max_tokens"),
        (json.dumps({"error": {"message": SAID["temperature"]}}), "temperature"),  # a proxy
        (SAID["top_p"], "top_p"),
        (json.dumps({"error": {**error("top_p"), "param": "logprobs"}}), ""),
        ('{"error": {"message": "max_tokens is too large: 9000", "param": "max_tokens"}}', ""),
        ('{"error": {"message": "This model does not support images."}}', ""),
        ('{"error": "no"}', ""),
        ('{"error": {"message": "no", "code": ["unsupported_value"]}}', ""),
        ('{"error": {"message": "no", "code": {}, "param": []}}', ""),
        ("[" * 60_000, ""),
        ("", ""),
    ],
)
def test_only_a_field_that_can_be_given_up_is(body: str, field: str) -> None:
    assert refused_field(body.encode()) == field
