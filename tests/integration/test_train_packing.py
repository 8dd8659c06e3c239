"""Packed documents do not see each other: this depends on details of TRL and transformers, so it is
tested."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moaa.recipe.schema import Sft, StoreAddress
from moaa.store import Store
from moaa.train import data
from moaa.train.job import Job
from moaa.train.tokens import IGNORED, Template
from moaa.weights import local
from tests.support import training as support
from tests.support.training import said

pytestmark = pytest.mark.real

JOB = Job(
    kind="sft",
    numbers=Sft(packing=True),
    base="b",
    data="s3://b/data",
    output="s3://b/sft/3f",
    store=StoreAddress(root="s3://b"),
)
ROWS = [
    {
        "messages": said(
            "What is the capital of France?", "Paris.", "And of Italy?", "Rome, of course."
        )
    },
    {"messages": said("Name a colour.", "Blue.")},
    {"messages": said("Count to five.", "One, two, three, four, five.")},
]


def test_the_logits_of_a_packed_document_are_those_of_the_document_alone(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    folder = local.resolve(support.SMOLLM2, Store("s3://unused"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, num_hidden_layers=6
    ).eval()
    template = Template.of(tokenizer, folder)
    alone = [made for row in ROWS for made in data.sft_examples(template, row).examples]
    prepared = data.prepare(JOB, ROWS, template, 256, tmp_path)
    (packed,) = data.read(prepared.path)
    assert (prepared.rows, prepared.sequences) == (3, 1)
    assert (
        sum(packed["seq_lengths"])
        == len(packed["input_ids"])
        == sum(len(one["input_ids"]) for one in alone)
    )

    # What the trainer does with it: no attention mask, positions that begin anew, no cache.
    batch = DataCollatorForLanguageModeling(pad_token_id=2, padding_free=True)([packed])
    assert "attention_mask" not in batch
    with torch.no_grad():
        together = model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).logits[0]
        start = 0
        for length in packed["seq_lengths"]:
            ids = packed["input_ids"][start : start + length]
            one = next(one for one in alone if one["input_ids"] == ids)
            assert packed["labels"][start : start + length] == one["labels"]
            by_itself = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
            assert torch.allclose(together[start : start + length], by_itself, atol=2e-3)
            start += length
        # That the documents would see each other otherwise, so that the test above can fail:
        leaking = model(input_ids=batch["input_ids"], use_cache=False).logits[0]
        assert not torch.allclose(leaking[-length:], by_itself, atol=2e-3)


def test_the_first_token_of_a_packed_document_bears_no_loss(tmp_path):
    from transformers import AutoTokenizer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    template = Template.of(
        AutoTokenizer.from_pretrained(local.resolve(support.SMOLLM2, Store("s3://unused"))),
        "a model",
    )
    (packed,) = data.read(data.prepare(JOB, ROWS, template, 256, tmp_path).path)
    batch = DataCollatorForLanguageModeling(pad_token_id=2, padding_free=True)([packed])
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    assert len(starts) == len(ROWS)
    assert all(batch["labels"][0, start] == IGNORED for start in starts)
    ends = [
        i for i, label in enumerate(batch["labels"][0].tolist()) if label == template.end_of_turn
    ]
    assert len(ends) == 4, "one end-of-turn for each of the four answers"


class Characters(Any):
    """A template whose tokens are the characters of the only message."""

    def sequences(self, messages, cut=()):
        ids = [ord(each) for each in messages[0]["content"]]
        return [(ids, [-each for each in ids])], Counter()

    def has_control_text(self, texts):
        return False

    def merges(self, messages):
        return False


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=20), min_size=1, max_size=30))
def test_packing_loses_nothing_and_keeps_each_conversation_whole(texts):
    rows = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        prepared = data.prepare(JOB, rows, Characters(), 20, Path(folder))
        packed = data.read(prepared.path).to_list()
    assert prepared.sequences == len(packed) <= prepared.rows == len(texts)
    found = []
    for sequence in packed:
        assert sum(sequence["seq_lengths"]) == len(sequence["input_ids"]) <= 20
        assert sequence["labels"] == [-each for each in sequence["input_ids"]]
        start = 0
        for length in sequence["seq_lengths"]:
            found.append(bytes(sequence["input_ids"][start : start + length]).decode())
            start += length
    assert Counter(found) == Counter(texts)
