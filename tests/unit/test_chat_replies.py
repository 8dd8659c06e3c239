"""Replies that are half an answer, no answer, or more than the answer: each is known as such."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from moaa.chat.fault import Fault
from moaa.chat.message import Call, Choice, Message
from moaa.chat.wire import parse_reply, refusal
from moaa.errors import CallRejected
from moaa.recipe import Sampling

NO_COUNTS: list[Any] = [math.nan, math.inf, 1.5, True, 1e300, [1], {}]
NO_LOGPROBS: list[Any] = [None, "-0.1", True, math.nan, math.inf, -math.inf, 3.0, []]
HELLO = (Message(role="user", content="Hello"),)
CALL = Call("m", HELLO, Sampling())
WEIGHED = Call("m", HELLO, Sampling(), choices=("A", "B"), logprobs=True)


def body(*choices: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"choices": choices, **more}).encode()


def message(content: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    return {
        "message": {"role": "assistant", "content": content},
        "finish_reason": finish,
        **more,
    }


def choice(content: Any, finish: Any = "stop", call: Call = CALL, **more: Any) -> Choice:
    return parse_reply(call, body(message(content, finish, **more)), 0.1).choices[0]


def position(token: str, p: float, other: str = "") -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(p)}, {"token": other, "logprob": math.log(1 - p)}]
    return {"token": token, "logprob": math.log(p), "top_logprobs": top}


THOUGHT = [position("Answer", 0.9), position(" A", 0.98, " B"), position("</think>", 0.9)]
"""What vLLM and SGLang send before the answer's own tokens, with a reasoning parser."""


@pytest.mark.parametrize(
    "finish", ["error", "abort", "ERROR", "tool_calls", "user_cancel", "odd", None, ""]
)
def test_half_an_answer_is_never_taken_for_a_whole_one(finish: str | None) -> None:
    with pytest.raises(Fault, match="unfinished answer") as fault:
        choice("The sky is blue because", finish)
    assert fault.value.alive, "the server answered: the others' requests may go on"


def test_an_answer_without_any_finish_reason_is_not_whole() -> None:
    left_out = {"message": {"role": "assistant", "content": "The sky is blue because"}}
    with pytest.raises(Fault, match="unfinished answer"):
        parse_reply(CALL, body(left_out), 0.1)


def test_an_answer_with_an_error_beside_it_is_not_whole() -> None:
    with pytest.raises(Fault, match="disconnected"):
        choice("The sky is", "stop", error={"code": 502, "message": "Upstream disconnected"})
    with pytest.raises(Fault, match="disconnected"):
        parse_reply(CALL, body(message("The sky is"), error={"message": "disconnected"}), 0.1)


@pytest.mark.parametrize("finish", ["content_filter", "SAFETY", "sensitive"])
def test_what_a_filter_stopped_is_no_answer(finish: str) -> None:
    with pytest.raises(CallRejected) as rejected:
        choice("The sky is", finish)
    assert rejected.value.reason == "content filter"


def test_a_prompt_that_a_filter_refuses_is_counted_as_filtered() -> None:
    """Azure answers 400."""
    said = {"error": {"message": "The prompt was filtered", "code": "content_filter"}}
    error = refusal(400, json.dumps(said).encode(), 0.0, CALL, "http://server/v1")
    assert isinstance(error, CallRejected)
    assert error.reason == "content filter"


def test_a_filter_takes_only_the_answers_that_it_stopped() -> None:
    reply = parse_reply(
        Call("m", HELLO, Sampling(n=2)),
        body(message("Half", "content_filter"), message("All")),
        0.1,
    )
    assert [each.text for each in reply.choices] == ["", "All"]
    assert [each.missing for each in reply.choices] == ["content filter", ""]


def test_more_answers_than_were_asked_for_are_left_out() -> None:
    reply = parse_reply(CALL, body(message("One."), message("Two.")), 0.1)
    assert [each.text for each in reply.choices] == ["One."]


@pytest.mark.parametrize("finish", ["length", "MAX_TOKENS", "model_length", "repetition"])
def test_a_cut_answer_is_known_as_cut(finish: str) -> None:
    found = choice("and then the next step is to", finish)
    assert (found.finish_reason, found.cut) == ("length", True)


@pytest.mark.parametrize("finish", ["stop", "eos_token", "COMPLETE", "end_turn"])
def test_a_whole_answer_is_not_cut(finish: str) -> None:
    found = choice("All of it.", finish)
    assert (found.finish_reason, found.cut) == ("stop", False)


def test_content_that_is_left_out_is_empty_like_null() -> None:
    left_out = {"message": {"reasoning": "Let me think about"}, "finish_reason": "length"}
    found = parse_reply(CALL, body(left_out), 0.1).choices[0]
    assert found == choice(None, "length") == Choice("", "length")
    assert found.missing == "empty"


def test_content_in_parts_is_the_text_of_its_text_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    assert choice([thinking, {"type": "text", "text": "The answer."}]).text == "The answer."
    assert choice(["The ", {"type": "text", "text": "answer."}]).text == "The answer."
    assert choice([thinking]).text == choice([]).text == ""


@pytest.mark.parametrize("content", [5, True, {}, {"text": "x"}, [5], [{"type": "text"}], [[]]])
def test_content_of_another_form_is_garbled(content: Any) -> None:
    with pytest.raises(Fault, match="garbled answer"):
        choice(content)


@pytest.mark.parametrize(
    "usage",
    ["many", ["1"], {"prompt_tokens": -1}, {"completion_tokens": "7"}, True]
    + [{"prompt_tokens": value} for value in NO_COUNTS],
)
def test_odd_counts_of_tokens_are_garbled_and_no_traceback(usage: Any) -> None:
    with pytest.raises(Fault, match="garbled answer"):
        parse_reply(CALL, body(message("Hello."), usage=usage), 0.1)


@pytest.mark.parametrize(
    "logprobs",
    [
        "text",
        ["A"],
        {"content": "A"},
        {"content": {"token": "A"}},
        {"content": [None]},
        {"content": [{"token": None, "logprob": -0.1}]},
        {"content": [{"token": 5, "logprob": -0.1}]},
        {"content": [{"token": "A"}]},
        {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": "A"}]},
        {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": None}]}]},
        *[{"content": [{"token": "A", "logprob": value}]} for value in NO_LOGPROBS],
        *[
            {"content": [{"token": "A", "logprob": -1, "top_logprobs": [each]}]}
            for each in ({"token": "B", "logprob": math.nan}, {"token": "B", "logprob": math.inf})
        ],
    ],
)
def test_odd_log_probabilities_are_garbled_never_a_verdict(logprobs: Any) -> None:
    with pytest.raises(Fault, match="garbled answer"):
        choice("A", call=WEIGHED, logprobs=logprobs)
    assert choice("A", logprobs=logprobs).text == "A", "nobody asked for them"


def test_a_forbidden_token_may_have_minus_infinity() -> None:
    forbidden = {"token": "the", "logprob": -math.inf}
    given = {"token": "A", "logprob": -0.1, "top_logprobs": [forbidden]}
    found = choice("A", call=WEIGHED, logprobs={"content": [given]})
    assert found.tokens == ({"A": -0.1, "the": -9999.0},)


def test_the_weight_of_a_verdict_is_not_read_from_reasoning() -> None:
    logprobs = {"content": [*THOUGHT, position("B", 0.9, "A")]}
    found = choice("B", call=WEIGHED, logprobs=logprobs)
    assert found.tokens is not None
    assert [next(iter(each)) for each in found.tokens] == ["B"]


@pytest.mark.parametrize(
    ("tokens", "text", "kept"),
    [
        (["B"], "B", ["B"]),
        (["\n\n", "B", "<|im_end|>", ""], "B", ["B"]),
        (["so", "</think>", "\n\nB"], "B", ["\n\nB"]),
        (["A", "</think>"], "B", []),
        (["A", "</think>", "B!"], "B", []),
        (["A is it", "</think>", "A", "B"], "B", ["B"]),
        (
            ["A", "</think>", "Gr", "\ufffd", "[[", "B", "]]", "</s>"],
            "Grü [[B]]",
            ["[[", "B", "]]"],
        ),
        (["x", "</think>", "a ", "</b>"], "a </b>", ["a ", "</b>"]),
        (["A", "</think>"], "", []),
    ],
)
def test_only_tokens_of_the_text_are_weighed(tokens: list[str], text: str, kept: list[str]) -> None:
    call = Call("m", HELLO, Sampling(), logprobs=True)
    logprobs = {"content": [{"token": token, "logprob": -0.1} for token in tokens]}
    found = choice(text, call=call, logprobs=logprobs).tokens
    assert [next(iter(each)) for each in found or ()] == kept


def test_an_empty_answer_under_a_grammar_is_asked_again() -> None:
    for content in (None, "", "  "):
        with pytest.raises(Fault, match="empty answer"):
            choice(content, call=WEIGHED)
    with pytest.raises(CallRejected, match="max_tokens"):  # it would be cut again
        choice(None, "length", call=WEIGHED)
