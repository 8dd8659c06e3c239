"""Prompts: read from any common shape, deduplicated, kept away from the evaluation prompts."""

import json
import random
import time
from collections import Counter

import pytest

from moaa.prompts.overlap import NearDuplicates, SharedRuns, Vocabulary, normalized, shingles
from moaa.prompts.prompt import PromptRow, read_prompt
from moaa.prompts.selection import build
from moaa.recipe.schema import Prompts, Source

SOURCE = Source(source="hub:some/data", name="some")
CONFIG = Prompts(sft=(SOURCE,), preference=(SOURCE,), evaluation=(SOURCE,))
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]


def prompt(*turns: str, **more) -> PromptRow:
    return read_prompt({"turns": list(turns), **more}, SOURCE)


def text(draw: random.Random, n: int, vocabulary: int = 1000) -> str:
    return " ".join(f"w{draw.randrange(vocabulary)}" for _ in range(n))


def fates(selection, name):
    return Counter(gone.reason for gone in selection.rejected if gone.set == name)


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


def brute_force(texts, threshold):
    """Which texts a greedy pass keeps, by comparing all shingle sets word by word."""

    def of(text):
        words = normalized(text).split()
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    kept: list[int] = []
    sets: list[set[tuple[str, ...]]] = []
    for index, each in enumerate(map(of, texts)):
        if not any(len(each & other) / len(each | other) >= threshold for other in sets):
            kept.append(index)
            sets.append(each)
    return kept


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("threshold", [0.3, 0.7, 0.9])
def test_near_duplicates_are_those_of_brute_force(seed, threshold):
    draw = random.Random(seed)
    texts = [
        text(draw, draw.randint(1, 120), vocabulary=draw.choice([3, 30, 3000])) for _ in range(60)
    ]
    for _ in range(120):  # edited copies, and copies of copies
        words = draw.choice(texts).split()
        for _ in range(draw.randint(0, 4)):
            place = draw.randrange(len(words))
            words[place : place + draw.randint(0, 1)] = [f"new{draw.randrange(5)}"]
        texts.append(" ".join(words))
    draw.shuffle(texts)
    unique = list(dict.fromkeys(texts))
    selection = build(
        {"sft": [prompt(each) for each in unique]},
        CONFIG.model_copy(update={"near_duplicate": threshold}),
    )
    expected = brute_force(unique, threshold)
    assert [row.turns[0] for row in selection.kept["sft"]] == [unique[i] for i in expected]
    assert 60 * 0.2 < len(expected) < len(unique)


@pytest.mark.parametrize("seed", range(6))
def test_shared_runs_are_those_of_brute_force(seed):
    draw = random.Random(seed)
    texts = [text(draw, draw.randint(0, 30), vocabulary=3) for _ in range(200)]
    known, asked = texts[:10], texts[10:]

    def runs(words):
        return {tuple(words[i : i + 7]) for i in range(len(words) - 6)}

    vocabulary = Vocabulary()
    shared = SharedRuns(((str(i), vocabulary.words(each)) for i, each in enumerate(known)), 7)
    outcomes = set()
    for each in asked:
        found = shared.find(vocabulary.words(each))
        expected = any(runs(each.split()) & runs(other.split()) for other in known)
        assert (found is not None) == expected
        if found:
            owner, run = found
            assert tuple(vocabulary.text(run).split()) in runs(known[int(owner)].split()) & runs(
                each.split()
            )
        outcomes.add(expected)
    assert outcomes == {True, False}


def test_a_threshold_is_reached_exactly():
    vocabulary = Vocabulary()
    a = shingles(
        vocabulary.words("1 2 3 4 5 6 7 8 9 10 11 12 13 14")
    )  # 10 shingles, 9 of them in b too, 11 in all
    b = shingles(vocabulary.words("1 2 3 4 5 6 7 8 9 10 11 12 13 other"))
    for threshold, expected in ((9 / 11, 0), (9 / 11 + 1e-6, None)):
        near = NearDuplicates([a, b], threshold)
        near.add(0)
        assert near.match(1) == expected


def test_of_several_similar_texts_the_first_is_named():
    near = NearDuplicates([shingles(Vocabulary().words("one two three four five six"))] * 4, 0.9)
    for index in (2, 0, 1):
        near.add(index)
    assert near.match(3) == 0


def test_words_are_told_apart_in_scripts_without_spaces():
    vocabulary = Vocabulary()
    assert len(vocabulary.words("今天天气很好，我们去公园吧")) == 12
    assert len(vocabulary.words("Straße, STRASSE; l'été x2")) == 5
    assert len(vocabulary.words("🎉🎉")) == 1
    a, b = vocabulary.words("?!"), vocabulary.words("🎉")
    assert a != b


def test_tens_of_thousands_of_prompts_take_seconds():
    draw = random.Random(3)
    boilerplate = [text(draw, 40) for _ in range(10)]
    rows = [prompt(f"{draw.choice(boilerplate)} {text(draw, 40, 50_000)}") for _ in range(10_000)]
    rows += [prompt(f"{row.turns[0]} please") for row in rows[:500]]
    evaluation = [prompt(text(draw, 60, 50_000)) for _ in range(200)]
    began = time.process_time()
    selection = build({"sft": rows, "evaluation": evaluation}, CONFIG)
    assert fates(selection, "sft") == {"near duplicate": 500}
    assert time.process_time() - began < 30
