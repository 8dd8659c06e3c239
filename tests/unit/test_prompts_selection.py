"""Which prompts are kept, and why the others are not."""

import json
import random

import pytest

from moaa.prompts.prompt import read_prompt
from moaa.prompts.selection import build
from moaa.recipe.schema import Source
from tests.support.prompt_texts import CONFIG, SOURCE, fates, prompt, text

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]


@pytest.mark.parametrize(
    ("row", "system", "turns"),
    [
        ({"prompt": "Why?"}, None, ["Why?"]),
        (
            {"question_id": 81, "category": "writing", "turns": ["One.", "Two."]},
            None,
            ["One.", "Two."],
        ),  # MT-Bench
        (
            {"key": "0", "prompt": "Why?", "instruction_id_list": ["x"], "kwargs": [{"N": None}]},
            None,
            ["Why?"],
        ),  # IFBench
        (
            {"source": "s", "instruction": "Why?", "models": [], "completions": []},
            None,
            ["Why?"],
        ),  # UltraFeedback
        (
            {"prompt": "Hi", "prompt_id": "1", "messages": CHAT},
            "Be brief.",
            ["Hi", "Bye"],
        ),  # UltraChat
        ({"prompt": "Hi", "chosen": CHAT, "rejected": CHAT}, None, ["Hi"]),
        ({"prompt": CHAT}, "Be brief.", ["Hi", "Bye"]),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}]},
            None,
            ["Hi"],
        ),
        (
            {"instruction": "Translate.", "input": "chat", "output": "cat"},
            None,
            ["Translate.\n\nchat"],
        ),
        ({"instruction": "Why?", "input": "", "output": "So."}, None, ["Why?"]),
        ({"prompt": "  Why?\n", "system": "Be brief. "}, "Be brief.", ["Why?"]),
        ({"messages": [], "prompt": "Why?"}, None, ["Why?"]),
    ],
)
def test_rows_of_any_common_shape_are_read(row, system, turns):
    found = read_prompt(row, SOURCE)
    assert (found.system, list(found.turns), found.source, found.problem) == (
        system,
        turns,
        "some",
        "",
    )


def test_the_sources_field_and_its_limit_of_turns_are_followed():
    row = {"prompt": "not this", "questions": ["a", "b", "c"]}
    found = read_prompt(row, Source(source="file.jsonl", field="questions", turns=2))
    assert (found.turns, found.source) == (("a", "b"), "file.jsonl")


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ({"a": 1, "b": 2}, None, "no column with a prompt among a, b"),
        ({}, None, "among none"),
        ({"prompt": "x"}, "question", "no column question among prompt"),
        ({"prompt": 7}, None, "column prompt holds neither a text nor turns nor messages"),
        ({"turns": ["a", None]}, None, "column turns holds neither"),
        (
            {"messages": [{"role": "user", "content": None}]},
            None,
            "a message of column messages has no text",
        ),
        ({"prompt": "half \ud83d"}, None, "not valid Unicode"),
        ({"prompt": "x", "system": 3}, None, "column system holds no text"),
        ("a text", None, 'the row is not an object: "a text"'),
        (["a", "list"], "prompt", 'the row is not an object: ["a", "list"]'),
        (None, None, "the row is not an object: null"),
    ],
)
def test_what_cannot_be_read_is_rejected_with_its_problem(row, field, problem):
    found = read_prompt(row, Source(source="s", field=field))
    assert problem in found.problem
    (gone,) = build({"sft": [found]}, CONFIG).rejected
    assert (gone.reason, gone.set, gone.detail) == ("unreadable", "sft", found.problem)
    json.dumps(gone.to_json()).encode()


def test_ids_are_those_of_the_normalized_turns():
    assert prompt("Why  is\nit?").id == prompt("why is IT?").id == prompt("Why is it\uff1f").id
    assert len({prompt("a", "b").id, prompt("a b").id, prompt("b", "a").id, prompt("a").id}) == 4
    assert len(prompt("x").id) == 16
    assert set(prompt("x").to_json()) == {"id", "source", "system", "turns"}


def test_the_same_question_under_two_system_messages_is_two_prompts():
    question = "Why is the sky blue, and why is it red in the evening behind the hills?"
    rows = [
        prompt(question),
        prompt(question, system="Be brief."),
        prompt(question, system="You are a pirate."),
    ]
    repeated = [
        prompt(question.upper(), system="be  brief."),
        prompt(f"{question} Say!", system="Be brief."),
    ]
    selection = build({"sft": [*rows, *repeated]}, CONFIG)
    assert selection.kept["sft"] == rows
    assert [(gone.row, gone.reason) for gone in selection.rejected] == [
        (repeated[0], "duplicate"),
        (repeated[1], "near duplicate"),
    ]
    guarded = build({"sft": rows[1:], "evaluation": rows[:1]}, CONFIG)
    assert fates(guarded, "sft") == {"shares a run of words with an evaluation prompt": 2}, (
        "whatever the system message"
    )


def test_ids_without_a_system_message_are_those_of_earlier_runs():
    assert prompt("Why is it?").id == "42b6af5dff9faa45"
    assert prompt("Why is it?", "And now?").id == "2c99fcfbab98484a"


def test_empty_and_too_long_prompts_are_rejected_with_their_size():
    rows = [
        prompt("x", " "),
        read_prompt({"messages": CHAT[:1]}, SOURCE),
        prompt("y" * 101),
        prompt("z" * 100),
    ]
    selection = build({"preference": rows}, CONFIG.model_copy(update={"max_characters": 100}))
    assert [row.turns for row in selection.kept["preference"]] == [("z" * 100,)]
    assert [(gone.reason, gone.detail) for gone in selection.rejected] == [
        ("empty", "a user turn without text"),
        ("empty", "no user turn"),
        ("too long", "101 characters; max_characters is 100"),
    ]
    assert set(selection.rejected[0].to_json()) == {
        "id",
        "source",
        "set",
        "reason",
        "detail",
        "text",
    }
    assert (
        len(
            build(
                {"sft": [prompt("y" * 1000, "y")]}, CONFIG.model_copy(update={"max_characters": 9})
            )
            .rejected[0]
            .to_json()["text"]
        )
        == 500
    )


def test_of_equal_prompts_the_first_is_kept():
    rows = [
        prompt("What is a cat?"),
        prompt("what is  a CAT?"),
        prompt("What is a dog?"),
        prompt("What is a cat!"),
    ]
    selection = build({"sft": rows}, CONFIG)
    assert [row.turns for row in selection.kept["sft"]] == [
        ("What is a cat?",),
        ("What is a dog?",),
    ]
    assert fates(selection, "sft") == {
        "duplicate": 1,
        "near duplicate": 1,
    }  # the last differs in its punctuation only
    assert all(rows[0].id in gone.detail for gone in selection.rejected)
    exact = build({"sft": rows}, CONFIG.model_copy(update={"near_duplicate": 1.0}))
    assert fates(exact, "sft") == {"duplicate": 1}


def test_sft_and_preference_prompts_may_be_the_same():
    rows = [prompt("What is a cat?"), prompt("What is a dog?")]
    selection = build({"sft": rows, "preference": rows, "evaluation": []}, CONFIG)
    assert selection.kept["sft"] == selection.kept["preference"] == rows
    assert selection.rejected == []


def test_nothing_near_the_evaluation_prompts_is_kept_elsewhere():
    draw = random.Random(0)
    run = text(draw, 13)
    evaluation = [
        prompt(f"{text(draw, 20)} {run} {text(draw, 20)}"),
        prompt("Why is the sky blue?", "And at night, why is it dark?"),
        prompt("Go on."),
    ]
    long = text(draw, 100)
    evaluation.append(prompt(long))
    rows = {
        "a run of 13 words, in another turn": prompt(
            "Hello there.", f"{text(draw, 5)} {run.upper()} {text(draw, 5)}"
        ),
        "a run of 12 words": prompt(f"{text(draw, 5)} {run.rsplit(' ', 1)[0]} {text(draw, 5)}"),
        "the first turn of one": prompt("Why is the sky blue?!"),
        "the second turn of one": prompt("Once more:", "And at night, why is it dark?"),
        "a short turn that says nothing": prompt("Tell me about whales.", "Go on."),
        "the short prompt itself": prompt("go on"),
        "something else": prompt("Why is the sea blue?"),
    }
    for name in ("sft", "preference"):
        selection = build({name: list(rows.values()), "evaluation": evaluation}, CONFIG)
        kept = [title for title, row in rows.items() if row in selection.kept[name]]
        assert kept == ["a run of 12 words", "a short turn that says nothing", "something else"]
        assert selection.kept["evaluation"] == evaluation
        assert fates(selection, name) == {
            "shares a run of words with an evaluation prompt": 1,
            "near an evaluation prompt": 3,
        }
    assert evaluation[0].id in selection.rejected[0].detail
    assert run in selection.rejected[0].detail


def test_near_duplicates_of_evaluation_prompts_are_found_without_a_long_run():
    draw = random.Random(1)
    words = text(draw, 60).split()
    changed = list(words)
    for place in (11, 23, 35, 47):  # no run of 13 is left; 20 of 56 shingles differ: 36 / 76 = 0.47
        changed[place] = "other"
    sets = {"evaluation": [prompt(" ".join(words))], "sft": [prompt(" ".join(changed))]}
    assert build(sets, CONFIG).rejected == []
    (gone,) = build(sets, CONFIG.model_copy(update={"near_duplicate": 0.45})).rejected
    assert gone.reason == "near an evaluation prompt"
