"""Which rows are trained on, and how the others are counted. Tokens are characters here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moaa.errors import RowRejected, TrainError
from moaa.recipe.schema import Sft, StoreAddress
from moaa.train import data
from moaa.train.data import Prepared, dpo_example, examples, prepare, sft_example
from moaa.train.job import Job

JOB = Job(
    kind="sft",
    numbers=Sft(packing=False),
    base="b",
    data="s3://b/data",
    output="s3://b/sft/3f",
    store=StoreAddress(root="s3://b"),
)


class Characters:
    """A template that writes `role>content.` and knows no system role."""

    def conversation(self, messages):
        text = "".join(f"{m['role'][0]}>{m['content']}." for m in messages)
        if "bad" in text:
            raise RowRejected("prompt_differs", "as told")
        return [ord(c) for c in text], [-100] * len(text)

    def answers(self, messages, *texts):
        return self.conversation(messages)[0], [[ord(c) for c in text.strip()] for text in texts]

    def merges(self, messages):
        return messages[0]["role"] == "system"


def row(text, system=False):
    told = [{"role": "system", "content": "s"}] if system else []
    return {"messages": [*told, {"role": "user", "content": text}]}


def test_every_row_is_kept_or_counted_by_its_reason():
    counts = Prepared()
    rows = [row("good"), row("bad"), row("x" * 40), row("told", system=True), row("bad")]
    kept = list(examples(sft_example, rows, Characters(), 20, counts))
    assert counts.rows == len(kept) == 2
    assert counts.dropped == {"prompt_differs": 2, "too_long": 1}
    assert counts.rows + counts.dropped.total() == len(rows)
    assert counts.merged_system == 1
    assert counts.tokens == sum(len(example["input_ids"]) for example in kept)


def test_a_pair_is_as_long_as_its_prompt_and_its_longer_answer():
    rows = [
        {**row("q"), "chosen": c, "rejected": r}
        for c, r in (("1234", "12"), ("12", "1234"), ("1234", "12345"), ("12345", "1"))
    ]
    counts = Prepared()
    kept = list(examples(dpo_example, rows, Characters(), 8, counts))
    assert [bytes(example["chosen_ids"]).decode() for example in kept] == ["1234", "12"]
    assert counts.dropped == {"too_long": 2}


def test_a_pair_of_the_same_answer_teaches_nothing():
    rows = [
        {**row("q"), "chosen": c, "rejected": r} for c, r in (("a", "a"), ("a", "a "), ("a", "b"))
    ]
    counts = Prepared()
    assert len(list(examples(dpo_example, rows, Characters(), 99, counts))) == 1
    assert counts.dropped == {"identical": 2}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], ["No row of s3://b/data", "it has no rows"]),
        (
            [row("bad"), row("x" * 40), row("y" * 40)],
            ["all 3 were left out", "2 too_long", "1 prompt_differs", "max_length is 20"],
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
    assert table.to_pylist() == list(examples(sft_example, rows, Characters(), 20, Prepared()))
    assert data.length(table.to_pylist()[1202]) == len("u>1202.")


TEXTS = st.lists(st.text("abc", max_size=30) | st.just("bad"), max_size=30)


@given(TEXTS)
def test_rows_keep_their_order_and_none_is_lost(texts):
    counts = Prepared()
    kept = list(examples(sft_example, map(row, texts), Characters(), 20, counts))
    fitting = [text for text in texts if text != "bad" and len(text) + 3 <= 20]
    assert [bytes(each["input_ids"]).decode()[2:-1] for each in kept] == fitting
    assert counts.rows + counts.dropped.total() == len(texts)
