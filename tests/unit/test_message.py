"""Messages for models without a system role."""

from __future__ import annotations

from moaa.chat.message import Call, Message, without_system
from moaa.recipe import Sampling


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


def test_half_a_surrogate_pair_has_a_key_too() -> None:
    call = Call("m", (Message(role="user", content="\ud83d"),), Sampling())
    assert len(call.key) == 32
