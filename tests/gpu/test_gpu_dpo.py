"""DPO on the GPU: ZeRO-2 and ZeRO-3, with tokens/s, MFU and peak memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.conftest import S3
from tests.gpu import shapes
from tests.gpu.conftest import MakeJob
from tests.gpu.results import Results
from tests.gpu.shapes import Shape
from tests.gpu.training import train


@pytest.mark.parametrize("zero", [2, 3])
def test_dpo(
    s3: S3, job: MakeJob, shape: Shape, results: Results, tmp_path: Path, zero: int
) -> None:
    longest = min(2048, shape.context)
    rows = shapes.preferences(64, longest)
    numbers = {
        "learning_rate": 1e-5,
        "epochs": 4,
        "max_steps": 12,
        "global_batch": 8,
        "micro_batch": 2,
        "max_length": longest,
        "zero_stage": zero,
        # The default. The reference's log-probabilities are of other batches, so bfloat16 rounds
        # them otherwise: by 1.3 on average of about 10,000, seen on an H200.
        "beta": 0.01,
    }
    trained = train(job(rows, shape, numbers), s3.store, tmp_path)

    lengths = shapes.lengths(rows, shapes.tokenizer(shape.vocabulary))
    measured = trained.measured(shape, lengths, str(results.machine["gpu"]))
    name = f"dpo {shape.name} zero-{zero}"
    results.add(name, {**measured, "pairs_a_step": 8, "max_length": longest})

    assert trained.facts["zero_stage"] == zero
    assert trained.losses[0] == pytest.approx(math.log(2), abs=0.02), (
        "before the first step the model is its own reference"
    )
    assert trained.losses[-1] < trained.losses[0]
