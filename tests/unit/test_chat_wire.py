"""Whatever a server sends: a reply, or an error that says what is wrong; never a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moaa.chat.fault import SHOWN, Denied, Fault
from moaa.chat.message import Call, Message, Reply
from moaa.chat.wire import parse_reply, refusal
from moaa.errors import CallError, CallRejected, EngineError, RowRejected
from moaa.judge import verdict
from moaa.recipe import Sampling
from moaa.store.bytes import to_json

CALL = Call("m", (Message(role="user", content="Hello"),), Sampling())
FIELDS = [
    "choices",
    "message",
    "content",
    "finish_reason",
    "logprobs",
    "token",
    "logprob",
    "top_logprobs",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "error",
    "code",
    "param",
    "detail",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["A", "B", "[[A]]", "length", "half \ud83d"]),
)
ANY = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def or_any(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly the right form, sometimes anything."""
    return st.one_of(good, good, good, ANY)


TOKEN = {"token": or_any(st.sampled_from(["A", "B", " A", "x"])), "logprob": or_any(st.floats())}
POSITION = st.fixed_dictionaries(
    TOKEN | {"top_logprobs": or_any(st.lists(or_any(st.fixed_dictionaries(TOKEN)), max_size=3))}
)
CHOICE = st.fixed_dictionaries(
    {
        "message": or_any(
            st.fixed_dictionaries({"content": or_any(st.sampled_from(["A", "so [[B]]", None]))})
        ),
        "finish_reason": or_any(st.sampled_from(["stop", "length"])),
        "logprobs": or_any(
            st.fixed_dictionaries({"content": or_any(st.lists(or_any(POSITION), max_size=2))})
        ),
    }
)
ANSWER = st.fixed_dictionaries(
    {
        "choices": or_any(st.lists(or_any(CHOICE), max_size=2)),
        "usage": or_any(
            st.fixed_dictionaries(
                {
                    "prompt_tokens": or_any(st.integers(0, 9)),
                    "completion_tokens": or_any(st.none() | st.floats()),
                }
            )
        ),
    }
)
BODIES = st.one_of(ANSWER.map(json.dumps).map(str.encode), ANY.map(json.dumps).map(str.encode))


def parsed(body: bytes) -> Reply | None:
    try:
        return parse_reply(CALL, body, 1.0)
    except (Fault, CallRejected) as error:
        str(error).encode()  # every terminal can show it
        return None


@given(BODIES | st.binary(max_size=40))
@example(b"[" * 100_000)
@example(b'{"choices": ' + b"[" * 100_000)
@example(b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e999}}')
@example(b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}')
def test_an_answer_of_any_form_is_a_reply_or_a_clear_error(body: bytes) -> None:
    reply = parsed(body)
    if reply is None:
        return
    again = Reply.from_json(json.loads(to_json(reply.to_json())))
    assert again == reply, "the journal changes it"
    assert reply.prompt_tokens + reply.completion_tokens >= 0
    for choice in reply.choices:
        assert choice.text.encode() is not None
        assert isinstance(choice.finish_reason, str)
        try:
            found = verdict.soft(choice)
        except RowRejected:
            continue
        assert 0 <= found.p <= 1


@given(st.integers(100, 599), BODIES | st.binary(max_size=40))
@example(400, b"[" * 100_000)
@example(400, json.dumps({"error": {"message": "half \ud83d"}}).encode())
def test_a_refusal_of_any_form_is_a_clear_error(status: int, body: bytes) -> None:
    error = refusal(status, body, 0.0, CALL, "http://server/v1")
    assert isinstance(error, Fault | Denied | CallError | EngineError)
    assert len(str(error).encode()) < 4 * SHOWN + 500


@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_without_a_body_names_its_status(status: int) -> None:
    error = refusal(status, b"", 0.0, CALL, "http://server/v1")
    assert isinstance(error, CallRejected)
    assert error.detail == f"HTTP {status} with an empty body"


@pytest.mark.parametrize(
    "message",
    [
        "System role not supported",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Only user and assistant roles are supported!",
        "Unexpected system message",
    ],
)
def test_a_refused_system_message_names_the_field_that_helps(message: str) -> None:
    body = json.dumps({"error": {"message": message}}).encode()
    told = Call("m", (Message(role="system", content="Be brief."), *CALL.messages), Sampling())
    error = refusal(400, body, 0.0, told, "http://server/v1")
    assert isinstance(error, CallRejected)
    assert error.reason == "system role refused"
    assert "models.m.system_role: false" in error.detail
    other = refusal(400, body, 0.0, CALL, "http://server/v1")
    assert isinstance(other, CallRejected)
    assert other.reason == "bad request"
