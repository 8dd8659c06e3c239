"""Reasoning is no part of an answer, wherever it stands; an answer about its markers is kept."""

from __future__ import annotations

import json

import pytest

from moaa.chat.message import Call, Choice, Message
from moaa.chat.thoughts import without_thoughts
from moaa.chat.wire import parse_reply
from moaa.recipe import Sampling

CALL = Call("m", (Message(role="user", content="Hello"),), Sampling())


def choice(content: str, finish: str = "stop") -> Choice:
    message = {"role": "assistant", "content": content}
    data = json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode()
    return parse_reply(CALL, data, 0.1).choices[0]


THOUGHTS = {
    "<think>\nOkay.\n</think>\n\nThe answer.": "Qwen3, DeepSeek-R1 through vLLM without a parser",
    "Okay.\n</think>\n\nThe answer.": "the template opened the thought",
    "Okay.</think>The answer.": "the same, DeepSeek-V3.1",
    "</think>\n\nThe answer.": "the template opened it, nothing was thought",
    "\n<think></think>\nThe answer.": "thinking switched off",
    "<THINK>a</THINK><think>b</think>The answer.": "two thoughts",
    "<thinking>Hm.</thinking> The answer.": "thinking",
    "<thought>Hm.</thought> The answer.": "EXAONE",
    "<reasoning>Hm.</reasoning> The answer.": "reasoning",
    "<seed:think>Hm.</seed:think>The answer.": "Seed-OSS",
    "[THINK]Hm.[/THINK]The answer.": "Magistral",
    "◁think▷Hm.◁/think▷The answer.": "Kimi",
    "<|begin_of_thought|>Hm.<|end_of_thought|>\n\n<|begin_of_solution|>The answer."
    "<|end_of_solution|>": "OpenThinker",
    "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>The answer.<|END_RESPONSE|>": "Cohere",
    "<think>\nHm.\n</think>\n<answer>\nThe answer.\n</answer>": "Hunyuan",
    "<think>\nHm.\n</think>\n<answer>\nThe answer.": "Hunyuan, cut",
    "<|channel>thought\nHm.<channel|>The answer.": "Gemma 4",
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
    "The answer.": "gpt-oss",
    "analysisWe need to answer.assistantfinalThe answer.": "gpt-oss without its special tokens",
    "<ifm|think_fast>Hm.</ifm|think_fast>The answer.": "K2 Horizon",
    "<think:a1b2>Hm.</think:a1b2>The answer.": "Hunyuan 4",
    "<|open|>think<|sep|>Hm.<|close|>think<|sep|><|open|>response<|sep|>The answer."
    "<|close|>response<|sep|><|close|>message<|sep|>": "Kimi K3",
    "Hm.<|close|>think<|sep|>The answer.": "Kimi K3, opened by the template",
    "<|plamo:begin_think:plamo|>Hm.<|plamo:end_think:plamo|>The answer.": "PLaMo 3",
    "to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>The answer.": "Muse",
    "\ufeff<think>Hm.</think>The answer.": "after a byte order mark",
    "\u200b\n<think>Hm.</think>The answer.": "after an invisible blank",
    "<think>Hm.<think>Oh.</think>So.</think>The answer.": "a thought inside a thought",
    "<think>a<think>b<think>c</think>d</think>e</think>The answer.": "two thoughts inside",
    "<think>The end is `</think>`. So.</think>The answer.": "a thought about its own marker",
    '<think>He said "so".</think>The answer.': "a thought that ends with a quotation",
    f"{'<think>' * 99}Hm.</think>The answer.": "one that opens again and again",
    "<think>They ask about <think> in prompts.</think>The answer.": "one that mentions its opening",
    "Here is my thought process: Hm.\n\nHere is my response: The answer.": "Granite",
}


@pytest.mark.parametrize("text", THOUGHTS, ids=THOUGHTS.values())
def test_a_thought_is_no_part_of_an_answer(text: str) -> None:
    answer, how = without_thoughts(text)
    assert (answer, bool(how)) == ("The answer.", True)
    found = choice(text)
    assert (found.text, found.thought, found.cut) == ("The answer.", how, False)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Okay\n\n<think>\nlong\n</think>\n\nThe answer is 4.", "Okay\n\nThe answer is 4."),
        ("Sure.\n<think>secret</think>\nAnswer", "Sure.\n\nAnswer"),
        ("Sure.\n  [THINK]secret[/THINK] Answer", "Sure.\n\nAnswer"),
        ("<think>a</think>b<think>c</think>d", "b\n\nd"),
        ("<think>a</think>b <think>c</think>d <think>e</think>", "b d"),
        ("a</think>b\n<seed:think>c</think></seed:think>d", "b\n\nd"),
        ("<think>a</think>Use `<think>b</think>`.", "Use `<think>b</think>`."),
        ("<think>a</think>b\n```\n<think>c</think>\n```", "b\n```\n<think>c</think>\n```"),
        ("A:\n```\nx\n```\n<think>```</think>\nB", "A:\n```\nx\n```\n\nB"),
    ],
)
def test_a_thought_further_down_is_taken_out_and_counted(text: str, answer: str) -> None:
    assert without_thoughts(text)[0] == answer
    assert without_thoughts(text)[1]
    assert choice(text).text == answer


@pytest.mark.parametrize("text", ["<think>\nOkay, so", "<think>", "[THINK]Hm", "analysisWe need"])
def test_a_thought_that_was_cut_leaves_no_answer(text: str) -> None:
    found = choice(text, "length")
    assert (found.text, found.cut, found.missing) == ("", True, "empty")
    assert choice(text).text == ""


@pytest.mark.parametrize(
    "text",
    [
        "Qwen3 writes <think> before it answers.",
        "Write `<think>…</think>` around the reasoning, then the answer.",
        "The tag `</think>` ends a thought.",
        "The closing tag is </think>, as in XML.",
        'It ends with "</think>".',
        "Put it last:\n```\n</think>\n```\nThen answer.",
        "```xml\n<think>\nHm.\n</think>\n```",
        "analysis of the data shows that assistantfinal is a word",
        "Analysis\n\nIt is so.",
        "Here is my thought process: first, I add. Then I stop.",
        "I think it is so.",
        "Two tags exist.\n<think> and </think> mark the reasoning.",
        "Tell it so:\n\n```\n<think>\nHm.\n</think>\n```\n\nThen answer.",
        "Tell it so:\n~~~\n<think>Hm.</think>\n~~~",
        "Write\n`<think>Hm.</think>` first.",
        "The tag\n<think>\nhas no end here.",
        "  leading and trailing space stay \n",
        "",
    ],
)
def test_an_answer_that_mentions_a_marker_is_kept_as_it_is(text: str) -> None:
    assert without_thoughts(text) == (text, "")


def test_thoughts_of_any_length_are_found_at_once() -> None:
    for text in (
        "<think></think>" * 30_000,
        "<think>`</think>`</think>" * 20_000,
        "<think>" + "`</think>`" * 50_000,
        "`</think>" * 50_000,
        "```\n</think>" * 50_001,
        "a\n<think>" * 50_000,
        "a\n<think>b</think>c" * 20_000,
        "".join(f"\n<a{number}_think>" for number in range(30_000)),
    ):
        without_thoughts(text)
    assert without_thoughts("<think>" * 100_000) == ("", "marked")
