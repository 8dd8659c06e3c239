"""The arithmetic of batches, and DeepSpeed's configuration made of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moaa.errors import TrainError
from moaa.recipe.schema import Sft
from moaa.train.deepspeed import Batch, batch, check_rows, config


@pytest.mark.parametrize(
    ("global_batch", "micro", "ranks", "accumulation"),
    [(128, 1, 8, 16), (128, 4, 8, 4), (2, 1, 2, 1), (6, 3, 1, 2)],
)
def test_accumulation_follows_from_the_global_batch(global_batch, micro, ranks, accumulation):
    size = batch("sft", Sft(global_batch=global_batch, micro_batch=micro), ranks)
    assert size == Batch(ranks, micro, accumulation)
    assert size.total == global_batch


@pytest.mark.parametrize(
    ("global_batch", "micro", "ranks", "remedy"),
    [
        (10, 2, 4, "Set dpo.global_batch to 8 or 16"),
        (2, 1, 4, "Set dpo.global_batch to 4"),
        (7, 1, 2, "to 6 or 8"),
    ],
)
def test_a_batch_that_does_not_multiply_is_an_error_with_the_arithmetic(
    global_batch, micro, ranks, remedy
):
    with pytest.raises(TrainError) as error:
        batch("dpo", Sft(global_batch=global_batch, micro_batch=micro), ranks)
    assert f"{ranks} ranks x dpo.micro_batch {micro} = {ranks * micro}" in str(error.value)
    assert remedy in str(error.value)


def test_fewer_rows_than_a_batch_are_an_error_that_says_what_fits():
    size = Batch(ranks=2, micro=2, accumulation=8)
    check_rows("sft", 32, "packed sequences", size)
    with pytest.raises(
        TrainError,
        match=r"31 packed sequences.*global_batch 32 .*Set sft\.global_batch to 28 or less",
    ):
        check_rows("sft", 31, "packed sequences", size)
    with pytest.raises(TrainError, match=r"Lower sft\.micro_batch or runtime\.launcher\.ranks"):
        check_rows("sft", 3, "packed sequences", size)


def test_communication_is_overlapped_only_if_there_is_any():
    for ranks in (1, 8):
        made = config(Sft(zero_stage=2), Batch(ranks, 2, 4), "cuda", "bfloat16")
        assert made["zero_optimization"]["overlap_comm"] is (ranks > 1)


def test_the_configuration_says_the_same_batch_three_times():
    made = config(Sft(zero_stage=2), Batch(8, 2, 4), "cuda", "bfloat16")
    assert made["train_batch_size"] == 64
    assert made["train_micro_batch_size_per_gpu"] * made["gradient_accumulation_steps"] * 8 == 64
    assert made["bf16"] == {"enabled": True}
    assert made["zero_optimization"]["stage"] == 2


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_weights_are_gathered_for_saving_where_they_are_sharded(stage):
    made = config(Sft(zero_stage=stage), Batch(2, 1, 1), "cpu", "float32")
    assert made["zero_optimization"].get("stage3_gather_16bit_weights_on_model_save", False) == (
        stage == 3
    )
    assert not made["bf16"]["enabled"]


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 16))
def test_a_batch_multiplies_or_the_error_names_one_that_does(global_batch, micro, ranks):
    numbers = Sft(global_batch=global_batch, micro_batch=micro)
    try:
        size = batch("sft", numbers, ranks)
    except TrainError as error:
        assert global_batch % (ranks * micro)
        (named,) = re.findall(r"Set sft.global_batch to (\d+)(?: or (\d+))?", str(error))
        for other in filter(None, named):
            right = Sft(global_batch=int(other), micro_batch=micro)
            assert batch("sft", right, ranks).total == int(other)
    else:
        assert size.total == size.ranks * size.micro * size.accumulation == global_batch
