"""Errors are OpenAI's object for every status, whatever the engine said."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from yarl import URL

from moaa.gateway.mixtures.members import read_chunk
from moaa.gateway.relay import usage_in
from moaa.gateway.wire import ApiError, of_engine
from tests.support.clients import free_port
from tests.support.engine_server import CONTEXT_ERROR, status, text
from tests.support.gateways import ask, gateway_of, of
from tests.support.streaming_engine import StreamingEngine

VLLM_404 = {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}
FASTAPI = {"detail": [{"loc": ["body", "n"], "msg": "must be a number", "type": "int"}]}
OLD_VLLM = {"object": "error", "message": "bad", "type": "BadRequestError", "code": 40001}


@pytest.mark.parametrize(
    ("code", "body", "message", "expected"),
    [
        (401, '{"error":"Unauthorized"}', "Unauthorized", "invalid_api_key"),
        (404, json.dumps({"error": VLLM_404}), VLLM_404["message"], "model_not_found"),
        (
            400,
            json.dumps({"error": CONTEXT_ERROR}),
            CONTEXT_ERROR["message"],
            "context_length_exceeded",
        ),
        (422, json.dumps(FASTAPI), "body.n: must be a number", None),
        (400, json.dumps(OLD_VLLM), "bad", None),
        (404, '{"detail":"Not Found"}', "Not Found", "not_found"),
        (400, "plain words", "plain words", None),
        (500, "Internal Server Error", "Internal Server Error", None),
        (502, "<html><h1>Bad gateway</h1></html>", "HTTP 502", None),
        (413, "", "The request is too large.", "request_too_large"),
        (429, "", "Too many requests: wait, then try again.", "rate_limit_exceeded"),
        (503, "Service Unavailable", "Service Unavailable", "unavailable"),
        (400, '["a", 1]', "a; 1", None),
        (400, '"text"', "text", None),
        (400, '{"error": {"code": "content_filter", "message": "no"}}', "no", "content_filter"),
        (400, '{"error": null}', '{"error": null}', None),
    ],
)
def test_what_engines_say(code: int, body: str, message: str, expected: str | None) -> None:
    error = of_engine(code, body.encode(), "m")
    assert error.status == code
    inner = error.to_json()["error"]
    assert set(inner) == {"message", "type", "param", "code"}
    assert (inner["message"], inner["code"]) == (message, expected)
    assert isinstance(inner["type"], str)
    assert inner["type"] == inner["type"].lower()
    assert error.all_headers()["x-should-retry"] in ("true", "false")


def test_a_full_queue_of_an_engine_is_contended_and_not_down() -> None:
    said = {"message": "The request queue is full", "type": "Service Unavailable", "code": 503}
    error = of_engine(503, json.dumps({"error": said}).encode(), "m")
    assert (error.status, error.code) == (429, "engine_overloaded")
    assert error.all_headers() == {"x-should-retry": "true", "Retry-After": "1"}


def test_a_redirect_is_not_followed() -> None:
    assert of_engine(307, b"", "m").status == 502


@pytest.mark.parametrize(("asked", "sent"), [(0.2, "1"), (17.2, "18"), (86_400, "120")])
def test_nobody_is_asked_to_wait_longer_than_clients_do(asked: float, sent: str) -> None:
    assert of_engine(429, b"", "m", asked).all_headers()["Retry-After"] == sent


def test_half_a_character_and_endless_messages_do_not_break_the_object() -> None:
    error = of_engine(500, b'{"error": "\\ud83d ' + b"x" * 100_000 + b'"}', "m")
    assert len(json.loads(error.body())["error"]["message"]) == 4_000
    assert of_engine(500, b"\xff\xfe", "m").body()


def test_an_event_ends_the_stream() -> None:
    event = ApiError(502, "gone", "stream_broken").event()
    assert event.endswith(b"}\n\ndata: [DONE]\n\n")
    ours = ApiError(502, "gone", "stream_broken").response_event()
    assert ours.startswith(b"event: error\ndata: {")
    assert json.loads(ours.split(b"data: ")[1])["code"] == "stream_broken"


NOT_JSON = [
    (b"", "invalid_json"),
    (b"{", "invalid_json"),
    (b"[]", "invalid_json"),
    (b'{"model": "m"} x', "invalid_json"),
    (b'{"model": "m",}', "invalid_json"),
    (b'{"model" "m"}', "invalid_json"),
    (b'{"a": 1 "model": "m"}', "invalid_json"),
    (b"\xff{}", "invalid_json"),
    (b'{"model": "m", "a": ' + b"[" * 100_000, "invalid_json"),
    (b"{}", "missing_required_parameter"),
    (b'{"model": null}', "missing_required_parameter"),
    (b'{"model": 5}', None),
    (b'{"model": "m", "stream": "yes"}', None),
]


@pytest.mark.parametrize(("body", "code"), NOT_JSON, ids=[str(b)[:24] for b, _ in NOT_JSON])
async def test_a_body_that_is_no_request_is_refused(body: bytes, code: str | None) -> None:
    config = {"models": {"m": {"endpoints": [f"http://127.0.0.1:{free_port()}/v1"]}}}
    async with gateway_of(config) as running, running.post("/chat/completions", body) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/nothing"), ("GET", "/v1/models/nothing"), ("DELETE", "/")],
)
async def test_where_nothing_is(method: str, path: str) -> None:
    config = {"models": {"m": {"endpoints": [f"http://127.0.0.1:{free_port()}/v1"]}}}
    async with gateway_of(config) as running:
        url = running.url.removesuffix("/v1") + path
        async with running.http.request(method, url) as answer:
            assert answer.status == 404
            assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}
            assert answer.headers["x-request-id"].startswith("req_")


async def test_errors_of_an_engine_reach_the_client_so() -> None:
    with StreamingEngine("m") as engine:
        async with gateway_of(of(engine)) as running:
            for streamed in (False, True):
                engine.fail(text('{"error":"Unauthorized"}', 401))
                body = ask(stream=streamed)
                async with running.post("/chat/completions", body) as answer:
                    assert answer.status == 401
                    assert (await answer.json())["error"]["message"] == "Unauthorized"
            engine.fail(status(429, "slow down", retry_after=4_000))
            async with running.post("/chat/completions", ask()) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (429, "120")
            async with running.post("/chat/completions", ask(model="nothing")) as answer:
                assert answer.status == 404
                error = (await answer.json())["error"]
                assert (error["code"], error["param"]) == ("model_not_found", "model")


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
async def test_no_client_sees_the_key_of_the_servers(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", "sk-of-the-servers\n")
    with StreamingEngine("m") as engine:
        async with gateway_of(of(engine, key_env="MODEL_KEY")) as running:
            said = {"error": {"message": "wrong key: sk-of-the-servers", "type": "bad"}}
            engine.fail(text(json.dumps(said), status), times=3)
            async with running.post("/chat/completions", ask()) as answer:
                assert answer.status == status
                assert (await answer.json())["error"]["message"] == "wrong key: ***"


@pytest.mark.parametrize(
    "choices", [5, "text", {}, [None], ["x"], [{"index": "0"}], [{"delta": "x"}], [{"delta": [1]}]]
)
def test_a_chunk_of_another_form_is_the_servers_fault(choices: Any) -> None:
    with pytest.raises(ApiError, match="broken chunk") as caught:
        read_chunk(json.dumps({"choices": choices}).encode(), "m")
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "choices", [None, [], [{}], [{"index": None, "delta": None}], [{"delta": {"content": []}}]]
)
def test_a_chunk_may_lack_what_it_does_not_say(choices: Any) -> None:
    assert read_chunk(json.dumps({"choices": choices}).encode(), "m")["choices"] == choices


def test_a_negative_number_of_tokens_gives_no_key_more_of_them() -> None:
    used = usage_in(b'{"usage": {"prompt_tokens": -1000, "completion_tokens": 7}}')
    assert used
    assert (used.prompt, used.completion) == (0, 7)


async def test_a_request_that_is_too_large_gets_413() -> None:
    with StreamingEngine("m") as engine:
        async with gateway_of({**of(engine), "body_mib": 1}) as running:
            async with running.post("/chat/completions", ask("x" * (1 << 20))) as answer:
                assert answer.status == 413
                assert (await answer.json())["error"]["code"] == "request_too_large"
            async with running.post("/chat/completions", ask()) as answer:
                assert answer.status == 200


LINE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"NONSENSE\r\n\r\n", "invalid_http"),
        (LINE + b"bad header\r\n\r\n", "invalid_http"),
        (LINE + b"X: " + b"a" * 20_000 + b"\r\n\r\n", "invalid_http"),
        (LINE + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd", None),
    ],
    ids=["no request", "no header", "a long header", "not compressed"],
)
async def test_what_is_no_http(sent: bytes, code: str | None) -> None:
    config = {"models": {"m": {"endpoints": [f"http://127.0.0.1:{free_port()}/v1"]}}}
    async with gateway_of(config) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(running.url).port)
        writer.write(sent)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert b" 400 Bad Request" in head
    assert b"Server: moaa" in head
    error = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
