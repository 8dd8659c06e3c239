"""Which rows are trained on, and how the others are counted. Tokens are characters here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moaa.errors import DiskFull, RowRejected, TooManyRejected, TrainError
from moaa.recipe.schema import Sft, StoreAddress
from moaa.train import data
from moaa.train.data import (
    Prepared,
    check_left_out,
    dpo_examples,
    examples,
    prepare,
    sft_examples,
)
from moaa.train.job import Job

JOB = Job(
    kind="sft",
    numbers=Sft(packing=False),
    base="b",
    data="s3://b/data",
    output="s3://b/sft/3f",
    store=StoreAddress(root="s3://b"),
)


class Characters(Any):
    """A template that writes `role>content.` and knows no system role. A text of several lines
    becomes a sequence for each line."""

    def sequences(self, messages, cut=()):
        text = "".join(f"{m['role'][0]}>{m['content']}." for m in messages)
        if "bad" in text:
            raise RowRejected("prompt_differs", "as told")
        parts = text.split("\n")
        return [([ord(c) for c in t], [-100] * len(t)) for t in parts], Counter(odd="odd" in text)

    def answers(self, messages, texts, cut=()):
        ((prompt, _),), _ = self.sequences(messages)
        ends = ["" if was_cut else "." for was_cut in cut]
        return prompt, [
            [ord(c) for c in text.strip() + end] for text, end in zip(texts, ends, strict=True)
        ]

    def merges(self, messages):
        return messages[0]["role"] == "system"

    def has_control_text(self, texts):
        return any("<|" in text for text in texts)


def row(text, system=False):
    told = [{"role": "system", "content": "s"}] if system else []
    return {"messages": [*told, {"role": "user", "content": text}]}


def test_every_row_is_kept_or_counted_by_its_reason():
    counts = Prepared()
    rows = [row("good"), row("bad"), row("x" * 40), row("told", system=True), row("bad")]
    kept = list(examples(sft_examples, rows, Characters(), 20, counts))
    assert counts.rows == len(kept) == 2
    assert counts.dropped == {"prompt_differs": 2, "too_long": 1}
    assert counts.rows + counts.dropped.total() == len(rows)
    assert counts.merged_system == 1
    assert counts.tokens == sum(len(example["input_ids"]) for example in kept)


def test_a_pair_is_as_long_as_its_prompt_and_its_longer_answer():
    rows = [
        {**row("q"), "chosen": c, "rejected": r}
        for c, r in (("123", "1"), ("1", "123"), ("123", "1234"), ("1234", "1"))
    ]
    counts = Prepared()
    kept = list(examples(dpo_examples, rows, Characters(), 8, counts))
    assert [bytes(example["chosen_ids"]).decode() for example in kept] == ["123.", "1."]
    assert counts.dropped == {"too_long": 2}


def test_a_pair_of_the_same_answer_teaches_nothing():
    rows = [
        {**row("q"), "chosen": c, "rejected": r} for c, r in (("a", "a"), ("a", "a "), ("a", "b"))
    ]
    counts = Prepared()
    assert len(list(examples(dpo_examples, rows, Characters(), 99, counts))) == 1
    assert counts.dropped == {"identical": 2}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], ["No row of s3://b/data", "it has no rows"]),
        (
            [row("bad"), row("x" * 40), row("y" * 40)],
            [
                "all 3 were left out",
                "2 too_long",
                "1 prompt_differs",
                "as told",
                "max_length is 20",
            ],
        ),
    ],
)
def test_no_row_left_is_an_error_with_the_table_of_reasons(rows, said, tmp_path):
    with pytest.raises(TrainError) as error:
        prepare(JOB, rows, Characters(), 20, tmp_path)
    assert all(text in str(error.value) for text in said)


def test_what_is_written_is_what_was_made(tmp_path):
    import pyarrow as pa

    rows = [row(f"{n}") for n in range(1203)]
    prepared = prepare(JOB, rows, Characters(), 20, tmp_path)
    assert prepared.sequences == prepared.rows == 1203
    with pa.memory_map(prepared.path) as source:
        table = pa.ipc.open_stream(source).read_all()
    assert table.to_pylist() == list(examples(sft_examples, rows, Characters(), 20, Prepared()))
    assert data.length(table.to_pylist()[1202]) == len("u>1202.")


@pytest.mark.parametrize(("spoiled", "limit"), [(2, 0.01), (1, 0.0), (66, 0.65)])
def test_a_training_that_loses_more_of_its_rows_than_allowed_does_not_begin(
    spoiled, limit, tmp_path
):
    job = JOB.model_copy(update={"max_rejected_share": limit})
    rows = [row("bad")] * spoiled + [row("good")] * (100 - spoiled)
    with pytest.raises(TooManyRejected) as error:
        check_left_out(job, [prepare(job, rows, Characters(), 20, tmp_path)], 20)
    for text in (f"{spoiled} of 100 rows", "prompt_differs", "as told", "--chat-template"):
        assert text in str(error.value)
    allowed = JOB.model_copy(update={"max_rejected_share": spoiled / 100})
    prepared = prepare(allowed, rows, Characters(), 20, tmp_path)
    check_left_out(allowed, [prepared], 20)
    assert prepared.rows == 100 - spoiled


def test_one_row_of_a_few_that_are_held_out_does_not_end_the_training(tmp_path):
    """Before, each part had the limit alone: 1 of 4 held-out rows was more than 2 %."""
    job = JOB.model_copy(update={"max_rejected_share": 0.02})
    parts = {"data": [row("good")] * 96, "validation": [row("bad"), *[row("good")] * 3]}
    prepared = [
        prepare(job, rows, Characters(), 20, tmp_path, name) for name, rows in parts.items()
    ]
    check_left_out(job, prepared, 20)
    with pytest.raises(TooManyRejected, match="1 of 4 rows"):
        check_left_out(job, prepared[1:], 20)


def test_a_row_of_several_sequences_is_one_row_and_what_does_not_fit_is_counted():
    counts = Prepared()
    rows = [row("one\ntwo"), row("one\n" + "x" * 40), row("x" * 40 + "\n" + "x" * 41), row("odd")]
    kept = list(examples(sft_examples, rows, Characters(), 20, counts))
    assert [bytes(each["input_ids"]).decode() for each in kept] == [
        "u>one", "two.", "u>one", "u>odd.",
    ]  # fmt: skip
    assert (counts.rows, counts.split) == (3, 2)
    assert counts.dropped == {"too_long": 1}
    assert counts.left_out == {"too_long": 1, "odd": 1}


def test_cut_answers_are_counted_and_told_to_the_template():
    seen = []

    class Seeing(Characters):
        def sequences(self, messages, cut=()):
            seen.append(set(cut))
            return super().sequences(messages, cut)

    counts = Prepared()
    cut, whole = {"finish_reason": "length"}, {"finish_reason": "stop"}
    rows = [{**row("a"), "turns": turns} for turns in ([cut, whole, cut], [whole], [])]
    assert len(list(examples(sft_examples, [*rows, row("b")], Seeing(), 20, counts))) == 4
    assert seen == [{0, 2}, set(), set(), set()]
    assert counts.cut == 2


def test_a_rejected_answer_that_was_cut_has_no_end_of_turn():
    counts = Prepared()
    pair = {**row("q"), "chosen": "yes", "rejected": "no", "rejected_cut": True}
    (kept,) = examples(dpo_examples, [pair], Characters(), 20, counts)
    assert bytes(kept["chosen_ids"]) == b"yes."
    assert bytes(kept["rejected_ids"]) == b"no"
    assert counts.cut == 1


def test_rows_with_control_texts_are_kept_and_counted():
    counts = Prepared()
    pair = {**row("q"), "chosen": "<|a", "rejected": "b"}
    assert len(list(examples(dpo_examples, [pair], Characters(), 20, counts))) == 1
    assert len(list(examples(sft_examples, [row("<|x")], Characters(), 20, counts))) == 1
    assert counts.control_text == 2


def test_a_full_disk_under_the_data_set_is_an_error_that_says_what_to_free(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this machine has no /dev/full")
    (tmp_path / "data.arrow").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=r"The disk is full .*No space left") as error:
        prepare(JOB, [row("a")] * 30_000, Characters(), 20, tmp_path)
    assert "TMPDIR" in str(error.value)


TEXTS = st.lists(st.text("abc", max_size=30) | st.just("bad"), max_size=30)


@given(TEXTS)
def test_rows_keep_their_order_and_none_is_lost(texts):
    counts = Prepared()
    kept = list(examples(sft_examples, map(row, texts), Characters(), 20, counts))
    fitting = [text for text in texts if text != "bad" and len(text) + 3 <= 20]
    assert [bytes(each["input_ids"]).decode()[2:-1] for each in kept] == fitting
    assert counts.rows + counts.dropped.total() == len(texts)


def test_a_conversation_is_held_out_by_its_first_question() -> None:
    rows = [row(f"q {n}") for n in range(2000)]
    held = [each for each in rows if data.held_out(each, 0.1)]
    assert len(held) == pytest.approx(200, abs=40)
    assert not any(data.held_out(each, 0) for each in rows)
    for each in held[:20]:
        more = {"messages": [*each["messages"], {"role": "assistant", "content": "a"}]}
        assert data.held_out(more, 0.1)
        assert data.held_out(more, 0.5)
    with_system = {"messages": row(held[0]["messages"][0]["content"], system=True)["messages"]}
    assert data.held_out(with_system, 0.1)


def test_no_row_left_to_measure_is_an_error_that_says_so(tmp_path: Path) -> None:
    job = JOB.model_copy(update={"numbers": Sft(packing=False, validation=0.01)})
    with pytest.raises(TrainError, match=r"sft.validation is 0.01, .* Raise the share"):
        data.prepare(job, [], Characters(), 100, tmp_path, "validation")
