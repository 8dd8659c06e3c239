"""The share of a promoted model's slots, and who stays where."""

from __future__ import annotations

from typing import Any

from moaa.gateway.shares import conversation_of, slot_of

BOTH = {"a", "b"}


def digest(number: int) -> str:
    return conversation_of("key", {"messages": [{"role": "user", "content": f"Question {number}"}]})


def slots(shares: dict[str, float], count: int = 2000) -> list[str | None]:
    return [slot_of(digest(number), shares, BOTH) for number in range(count)]


def test_five_of_a_hundred_get_five_of_a_hundred() -> None:
    chosen = slots({"a": 95, "b": 5})
    assert 0.03 < chosen.count("b") / len(chosen) < 0.07


def test_all_turns_of_a_conversation_stay_with_their_slot() -> None:
    for number in range(200):
        history: list[dict[str, Any]] = [
            {"role": "system", "content": "It is 10:00."},
            {"role": "user", "content": f"Question {number}"},
        ]
        first = conversation_of("key", {"messages": history})
        history[0] = {"role": "system", "content": "It is 10:05."}
        history += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]
        assert conversation_of("key", {"messages": history, "temperature": 0}) == first


def test_who_asks_and_what_tell_conversations_apart() -> None:
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    found = {
        conversation_of("one", asked),
        conversation_of("two", asked),
        conversation_of("one", asked | {"user": "u7"}),
        conversation_of("one", {"prompt": "Hi"}),
        conversation_of("one", {"input": ["Hi", "Ho"]}),
        conversation_of("one", {}),
    }
    assert len(found) == 6


def test_a_share_that_grows_moves_nobody_back() -> None:
    for grows, other in (("b", "a"), ("a", "b")):
        before = slots({grows: 0, other: 100})
        for share in (5, 25, 26, 80, 100):
            now = slots({grows: share, other: 100 - share})
            assert all(new == grows for old, new in zip(before, now, strict=True) if old == grows)
            before = now
        assert set(before) == {grows}


def test_the_other_slot_answers_while_one_is_down() -> None:
    assert {slot_of(digest(n), {"a": 50, "b": 50}, {"b"}) for n in range(20)} == {"b"}


def test_a_slot_with_share_0_answers_nothing() -> None:
    shares = {"a": 100, "b": 0}
    assert slot_of(digest(1), shares, {"b"}) is None
    assert slot_of(digest(1), shares, {"a"}) == "a"
    assert slot_of(digest(1), {"a": 0, "b": 0}, BOTH) is None
