"""SFT on the GPU: ZeRO-2 and ZeRO-3, packed and not, with tokens/s, MFU and peak memory."""

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


@pytest.mark.parametrize(
    ("zero", "how"),
    [(2, "packed"), (2, "one a row"), (2, "all kept"), (3, "packed"), (3, "one a row")],
    ids=lambda value: str(value).replace(" ", "-"),
)
def test_sft(
    s3: S3, job: MakeJob, shape: Shape, results: Results, tmp_path: Path, zero: int, how: str
) -> None:
    """`all kept`: packed, without gradient checkpointing, which computes each layer twice."""
    packing = how != "one a row"
    longest = min(4096, shape.context)
    rows = shapes.conversations(200, longest)
    numbers = {
        "learning_rate": 2e-4,
        "epochs": 8,
        "max_steps": 12,
        "global_batch": 8,
        "micro_batch": 2,
        "max_length": longest,
        "zero_stage": zero,
        "packing": packing,
        "gradient_checkpointing": how != "all kept",
    }
    trained = train(job(rows, shape, numbers), s3.store, tmp_path)

    lengths = shapes.lengths(rows, shapes.tokenizer(shape.vocabulary))
    assert sum(lengths) == trained.facts["data_tokens"], (
        "the tests count tokens as the trainer does"
    )
    name = f"sft {shape.name} zero-{zero} {how}"
    measured = trained.measured(shape, lengths, str(results.machine["gpu"]))
    results.add(name, {**measured, "sequences_a_step": 8, "max_length": longest})

    assert trained.facts["zero_stage"] == zero
    assert (trained.facts["sequences"] < len(rows)) == packing
    assert all(math.isfinite(loss) for loss in trained.losses)
    assert trained.losses[0] == pytest.approx(math.log(shape.vocabulary), rel=0.1), (
        "before the first step a random model finds every token as likely as the others"
    )
    assert trained.losses[-1] < trained.losses[0]
