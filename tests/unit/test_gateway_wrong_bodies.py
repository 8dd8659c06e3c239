"""Every wrong body gets an answer that says in plain words what was given and what is allowed."""

import hashlib
import json
import re
from typing import Any

import aiohttp
import pytest

from moaa.gateway.app import PATHS
from moaa.gateway.wire import ApiError
from tests.support.memory_store import MemoryStore
from tests.support.mixing import Says, Script
from tests.support.mixing_server import mixing

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    1.5,
    float("nan"),
    float("inf"),
    10**30,
    "",
    "odd",
    "\ud83d",
    [],
    [None],
    [1, "a"],
    {},
    {"a": 1},
    {"proposals": 3},
    {"role": "user"},
    [{}],
    [{"role": []}],
    [{"role": "user"}],
    [{"role": "user", "content": 3}],
    [{"role": "user", "content": [3]}],
)
FIELDS = (
    *("model", "messages", "prompt", "input", "stream", "stream_options", "n", "temperature"),
    *("top_p", "max_tokens", "max_completion_tokens", "seed", "logprobs", "top_logprobs", "stop"),
    *("presence_penalty", "frequency_penalty", "response_format", "moaa", "tools", "modalities"),
    *("functions", "audio", "store", "user", "metadata"),
)
RAW = (b"", b"null", b"[]", b"3", b"{", b'{"a"', b'{"a": ', b'{"a": 1', b"\xff", b"[" * 100_000)
THEIR_WORDS = re.compile(
    r"\b(input|pydantic|valid|validat\w+|instance|NoneType|dict|bool|int|str|float|boolean|integer"
    r"|Extra|permitted|Field required|JSON: |out of range|Value error|Traceback|unable to)\b"
)
ROOT = "s3://moaa/use"
KEY = {"name": "me", "sha256": hashlib.sha256(b"me").hexdigest(), "feedback": True}


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, bytes]]:
    """Odd bodies for each address that takes one."""
    found: list[tuple[str, bytes]] = []
    for path in (*PATHS, "/feedback"):
        found += [(path, raw) for raw in RAW]
    for model in ("m1", "mix", "none"):
        whole = {"model": model, "messages": [{"role": "user", "content": "q"}]}
        paths = PATHS if model == "m1" else PATHS[:1]
        found += [
            (path, json.dumps({**whole, field: odd}).encode())
            for path in paths
            for field in FIELDS
            for odd in ODD
        ]
    rating = {"request_id": "r", "rating": 1}
    found += [
        ("/feedback", json.dumps({**rating, field: odd}).encode())
        for field in ("request_id", "rating", "comment")
        for odd in ODD
    ]
    return found


async def test_no_answer_has_the_words_of_a_library(asked, monkeypatch) -> None:
    monkeypatch.setattr("moaa.store.Store.of", lambda config, **more: MemoryStore(ROOT))
    refuses = Says(error=ApiError(400, "The engine refuses."))
    script = Script(**dict.fromkeys(("m1", "m2", "m3", "agg"), refuses))
    config = {"keys": [KEY], "anonymous": False, "feedback": {"store": {"root": ROOT}}}
    headers = {"Authorization": "Bearer me"}
    refused: dict[str, str] = {}
    async with mixing(script, **config) as running, aiohttp.ClientSession(headers=headers) as http:
        for path, body in asked:
            async with http.post(running.url + path, data=body) as answer:
                text = await answer.text()
            assert "The gateway failed" not in text, (path, body[:80])
            if answer.status == 400:
                refused.setdefault(json.loads(text)["error"]["message"], f"{path} {body[:80]!r}")
    assert {message: by for message, by in refused.items() if THEIR_WORDS.search(message)} == {}
    assert 'temperature is "odd". It must be a number.' in refused
    assert "n is -1. It must be greater than or equal to 1." in refused
    assert 'stop is [1, "a"]. It must be a text or a list of texts.' in refused
    assert 'model is {"a": 1}. It must be a text.' in refused
    assert "messages[0].content is 3. It must be a text or a list of texts." in refused
    assert "rating is 3. It must be less than or equal to 1." in refused
    assert "The body is not a JSON object: it ends too early." in refused
