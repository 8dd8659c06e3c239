"""What is said to a model: messages for those without a system role, and the identity of a call."""

from __future__ import annotations

import pytest

from moaa.chat.message import Call, Message, Redraw, opening, without_system
from moaa.chat.wire import request_body
from moaa.recipe import JudgeSampling, Sampling


def test_the_system_text_goes_before_the_first_user_message() -> None:
    messages = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Why?"),
        Message(role="assistant", content="So."),
        Message(role="user", content="Really?"),
    ]
    before = [dict(message) for message in messages]
    assert without_system(messages) == [
        {"role": "user", "content": "Be brief.\n\nWhy?"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "Really?"},
    ]
    assert messages == before, "the caller's messages stay as they are"


def test_without_a_system_message_nothing_changes() -> None:
    messages = [Message(role="user", content="Why?")]
    assert without_system(messages) == messages


@pytest.mark.parametrize("after", [[], [Message(role="assistant", content="So.")]])
def test_a_system_text_needs_a_user_message_to_go_to(after: list[Message]) -> None:
    with pytest.raises(ValueError, match="no user message follows"):
        without_system([Message(role="system", content="Be brief."), *after])


def test_an_opening_has_a_system_message_only_if_there_is_a_text() -> None:
    asked = {"role": "user", "content": "Why?"}
    assert opening("Be brief.", "Why?") == [{"role": "system", "content": "Be brief."}, asked]
    assert opening(None, "Why?") == opening("", "Why?") == [asked]


def test_half_a_surrogate_pair_has_a_key_too() -> None:
    call = Call("m", (Message(role="user", content="\ud83d"),), Sampling())
    assert len(call.key) == 32


HELLO = (Message(role="user", content="Hello"),)


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (Call("m", HELLO, Sampling()), "9d8aa8303e1b345642cd88ac46022d8e"),
        (Call("m", HELLO, JudgeSampling(), ("A", "B"), True), "d4665002b6f933662ad50588367f9780"),
    ],
)
def test_a_call_keeps_its_key_so_that_journals_stay_valid(call: Call, key: str) -> None:
    assert call.key == key


def test_calls_of_equal_proposers_have_keys_of_their_own_and_ask_the_same() -> None:
    sampling = Sampling(stop=("END",))
    calls = [
        Call("m", HELLO, each)
        for each in (sampling, *(Redraw(**sampling.model_dump(), sample=n) for n in (1, 2)))
    ]
    assert len({call.key for call in calls}) == 3
    assert len({request_body(call, "m") for call in calls}) == 1
