"""Rows of public data sets: the user's texts are read, and an answer never becomes a prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moaa.prompts.prompt import read_prompt
from moaa.prompts.transcript import opening_of_transcript
from moaa.recipe.schema import Source

ANSWER = "The answer is NEVER a prompt."
QUESTION, SECOND = "Which knot holds a boat?", "And which holds a tent?"


def chat(user: str, assistant: str, role: str = "role", text: str = "content") -> list[Any]:
    return [
        {role: user, text: QUESTION},
        {role: assistant, text: ANSWER},
        {role: user, text: SECOND},
    ]


def of(row: object, field: str | None = None) -> list[str]:
    found = read_prompt(row, Source(source="s", field=field))
    assert not found.problem, found.problem
    return list(found.turns)


def refusal(row: object, field: str | None = None) -> tuple[str, str]:
    found = read_prompt(row, Source(source="s", field=field))
    assert not found.turns, found.turns
    return found.reason, found.problem


@pytest.mark.parametrize(
    ("user", "assistant"),
    [
        ("user", "assistant"),
        ("Human", "chatgpt"),
        ("prompter", "assistant"),
        ("USER", "ASSISTANT"),
        ("human", "gpt"),
        ("User:", "Bot"),
        ("<|user|>", "<|assistant|>"),
        ("human", "model"),
    ],
)
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value"), ("speaker", "text")])
def test_roles_are_known_whatever_they_are_called(
    user: str, assistant: str, keys: tuple[str, str]
) -> None:
    assert of({"conversations": chat(user, assistant, *keys)}) == [QUESTION, SECOND]


def test_an_unknown_role_is_named_and_nothing_is_guessed() -> None:
    reason, problem = refusal({"messages": chat("narrator", "assistant")})
    assert reason == "unreadable"
    assert "has the role 'narrator'; known roles: user, human, prompter" in problem


PARALLEL = {"from": ["human", "gpt", "human"], "value": [QUESTION, ANSWER, SECOND]}


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"turns": [{"content": QUESTION}, {"content": SECOND}]}, None),  # Arena-Hard
        ({"conversation": [{"input": QUESTION, "output": ANSWER}, {"input": SECOND}]}, None),
        ({"conversation": [{"human": QUESTION, "assistant": ANSWER}, {"human": SECOND}]}, None),
        ({"conversations": [{"user": QUESTION}, {"assistant": ANSWER}, {"user": SECOND}]}, None),
        ({"id": "0", "data": [QUESTION, ANSWER, SECOND, ANSWER]}, None),  # UltraChat
        ({"data": [QUESTION, ANSWER, SECOND]}, "data"),
        ({"conversations": PARALLEL}, None),  # a Sequence of dict of older `datasets`
        ({"chosen": PARALLEL}, "chosen"),
        ({"conversation": {"input": [QUESTION, SECOND], "output": [ANSWER, ANSWER]}}, None),
        ({"messages": json.dumps(chat("user", "assistant"))}, None),
        ({"prompt": json.dumps(chat("user", "assistant"))}, None),
        ({"conversations": [["human", QUESTION], ["gpt", ANSWER], ["human", SECOND]]}, None),
        ({"dialogue": [[QUESTION, ANSWER], [SECOND, None]]}, "dialogue"),
        ({"instruction": SECOND, "output": ANSWER, "history": [[QUESTION, ANSWER]]}, None),
    ],
)
def test_the_answers_of_public_shapes_are_left_out(row: Any, field: str | None) -> None:
    assert of(row, field) == [QUESTION, SECOND]


@pytest.mark.parametrize(
    "pairs",
    [
        [["Human", QUESTION], ["AI Assistant", ANSWER]],
        [["user", QUESTION], ["narrator", ANSWER]],
        [["User 1", QUESTION], ["Bot", ANSWER]],
        [["Ann", QUESTION], ["Bob", ANSWER], ["Ann", SECOND], ["Bob", ANSWER]],
    ],
)
@pytest.mark.parametrize("column", ["messages", "conversation", "data"])
def test_names_of_speakers_are_never_prompts(pairs: list[list[str]], column: str) -> None:
    reason, problem = refusal({column: pairs})
    assert reason == "unreadable"
    assert any(repr(name) in problem for name, _ in pairs)


def test_pairs_of_questions_and_answers_are_read_also_with_a_question_that_comes_again() -> None:
    row = {"conversation": [[QUESTION, ANSWER], ["more", ANSWER], ["more", ANSWER]]}
    assert of(row) == [QUESTION, "more", "more"]


@pytest.mark.parametrize("key", ["type", "message_type"])
@pytest.mark.parametrize(("user", "assistant"), [("human", "ai"), ("HumanMessage", "AIMessage")])
def test_a_role_that_is_called_a_type_is_a_role(key: str, user: str, assistant: str) -> None:
    assert refusal({"text": ANSWER, key: assistant})[0] == "not a prompt"
    assert of({"text": QUESTION, key: user}) == [QUESTION]
    assert of({"turns": chat(user, assistant, key)}) == [QUESTION, SECOND]
    columns = {key: [user, assistant], "text": [QUESTION, ANSWER]}
    assert of({"conversation": columns}) == [QUESTION]


def test_a_type_that_is_no_role_changes_nothing() -> None:
    assert of({"turns": [{"type": "text", "text": QUESTION}]}) == [QUESTION]
    assert of({"instruction": QUESTION, "type": "function"}) == [QUESTION]
    schema = '{"type": "function", "name": "f"}'
    assert of({"prompt": schema}) == [schema]


def test_a_message_without_a_role_beside_others_with_one_is_no_prompt() -> None:
    assert refusal({"turns": [{"role": "user", "text": QUESTION}, {"text": ANSWER}]})[0] == (
        "unreadable"
    )


@pytest.mark.parametrize("field", ["conversation", "messages", "dialogue", "chat", "text"])
def test_a_list_of_texts_that_may_hold_answers_is_refused(field: str) -> None:
    reason, problem = refusal({field: [QUESTION, ANSWER, SECOND]}, field)
    assert reason == "unreadable"
    assert "nothing says which of them are answers" in problem


@pytest.mark.parametrize("role", ["assistant", "ASSISTANT", "gpt", "bot", "system", "tool"])
@pytest.mark.parametrize("column", ["text", "content", "prompt"])
@pytest.mark.parametrize("key", ["role", "from", "speaker"])
def test_a_text_beside_the_role_of_an_assistant_is_no_prompt(
    role: str, column: str, key: str
) -> None:
    assert refusal({column: ANSWER, key: role}, column) == (
        "not a prompt",
        f"its column {key} says {role!r}",
    )


def test_of_a_tree_of_messages_only_the_first_is_a_prompt() -> None:
    """Open Assistant: a row a message; a later question means nothing without what was before."""
    first = {"message_id": "a", "parent_id": None, "text": QUESTION, "role": "prompter"}
    assert of(first) == [QUESTION]
    assert refusal({**first, "text": SECOND, "parent_id": "b"})[0] == "not a prompt"


def test_a_role_that_is_a_persona_does_not_spoil_a_prompt() -> None:
    assert of({"role": "a pirate", "prompt": QUESTION}) == [QUESTION]
    assert refusal({"role": "a pirate", "text": QUESTION})[0] == "unreadable"


@pytest.mark.parametrize(
    "text",
    [
        f"\n\nHuman: {QUESTION}\n\nAssistant: {ANSWER}",  # Anthropic's
        f" Human: {QUESTION}  Assistant:",
        f"### Human: {QUESTION}### Assistant: {ANSWER}",  # Guanaco
        f"<s>[INST] {QUESTION} [/INST] {ANSWER} </s>",
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n{ANSWER}<|im_end|>",
        f"USER: {QUESTION} ASSISTANT: {ANSWER}</s>",
        f"<|user|>\n{QUESTION}\n<|assistant|>\n{ANSWER}",
        f"Below is an instruction that describes a task.\n\n### Instruction:\n{QUESTION}"
        f"\n\n### Response:\n{ANSWER}",
        f"### Instruction:\n{QUESTION}\n\n### Response:\n{ANSWER}",
        f"<start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n{ANSWER}",
    ],
)
@pytest.mark.parametrize("column", ["text", "prompt", "chosen"])
def test_a_conversation_in_one_text_is_refused(text: str, column: str) -> None:
    reason, problem = refusal({column: text}, column)
    assert reason == "unreadable"
    assert "holds a whole conversation as one text, answers too" in problem


@pytest.mark.parametrize(
    "text",
    [
        "What do 'Human:' and 'Assistant:' mean in this log?",
        "Continue this chat.\nUser: Hi\nAssistant: Hello",
        "User stories: write three. Response: a table.",
        "Human rights: when were they declared?",
        "What does [/INST] do?",
        "[1, 2] and [3]: add them",
        '{"a": 1} is what?',
    ],
)
def test_a_question_about_conversations_is_a_prompt(text: str) -> None:
    assert opening_of_transcript(text) is None
    assert of({"prompt": text}) == [text]


def test_only_a_users_message_needs_a_text() -> None:
    calls = [
        {"role": "system", "content": None},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
        {"role": "tool", "content": {"free": True}, "tool_call_id": "c1"},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": SECOND},
    ]
    assert of({"messages": calls}) == [QUESTION, SECOND]


def test_parts_of_a_message_are_joined() -> None:
    parts = [{"type": "text", "text": "Which knot"}, {"type": "text", "text": " holds a boat?"}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
    ]
    found = read_prompt({"messages": messages}, Source(source="s"))
    assert (found.system, found.turns) == ("Be brief.", (QUESTION,))


def test_a_question_with_a_picture_is_refused_not_asked_without_it() -> None:
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert (
        "part of type 'image_url'" in refusal({"prompt": [{"role": "user", "content": parts}]})[1]
    )


def test_a_developers_message_is_the_system_message_and_a_late_one_is_counted() -> None:
    found = read_prompt(
        {"messages": [{"role": "developer", "content": "Be brief."}, *chat("user", "assistant")]},
        Source(source="s"),
    )
    assert (found.system, found.left_out) == ("Be brief.", ())
    late = [*chat("user", "assistant"), {"role": "system", "content": "Now rhyme."}]
    found = read_prompt({"messages": late}, Source(source="s"))
    assert (found.system, found.left_out) == (None, ("system message after the first user turn",))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"messages": [{"content": QUESTION}]},
            "a message of column messages has no role: content",
        ),
        ({"messages": {"role": ["user"], "content": [QUESTION, ANSWER]}}, "different lengths"),
        ({"messages": "[{'role': 'user'}]"}, "looks like a list, but is not JSON"),
        ({"messages": "[" * 100_000}, "looks like a list, but is not JSON"),
        ({"messages": [["a", "b", "c"]]}, "neither a text nor turns nor messages"),
        ({"messages": [{"role": 0, "content": QUESTION}]}, "has the role 0; known roles"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_with_what_was_found(row: Any, words: str) -> None:
    reason, problem = refusal(row)
    assert (reason, words in problem) == ("unreadable", True), problem


def test_dollys_context_is_part_of_the_question() -> None:
    row = {"instruction": QUESTION, "context": "A boat of 3 t.", "response": ANSWER}
    assert of(row) == [f"{QUESTION}\n\nA boat of 3 t."]
