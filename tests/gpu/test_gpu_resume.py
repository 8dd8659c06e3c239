"""A training that is killed on the GPU goes on from its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import S3
from tests.gpu import shapes
from tests.gpu.conftest import MakeJob
from tests.gpu.results import Results
from tests.gpu.shapes import Shape
from tests.gpu.training import Ranks, train

STEPS = 60


@pytest.mark.parametrize("zero", [2, 3])
def test_resume(
    s3: S3, job: MakeJob, small: Shape, results: Results, tmp_path: Path, zero: int
) -> None:
    rows = shapes.conversations(64, 512)
    numbers = {
        "learning_rate": 2e-4,
        "epochs": 100,
        "max_steps": STEPS,
        "global_batch": 4,
        "micro_batch": 2,
        "max_length": 512,
        "zero_stage": zero,
    }
    uninterrupted = train(job(rows, small, numbers, name="whole"), s3.store, tmp_path)
    asked = job(rows, small, numbers, name="killed", checkpoint_steps=5)

    def no_checkpoint() -> bool:
        checkpoints = s3.store.list(f"{asked.output}/checkpoints")
        return not any(uri.endswith("/manifest.json") for uri, _ in checkpoints)

    with Ranks(asked, tmp_path) as ranks:
        ranks.follow(no_checkpoint)
        assert ranks.process.poll() is None, "it was to be killed before its end"
    killed_at = ranks.steps[-1][1]["step"]

    again = train(asked, s3.store, tmp_path)
    resumed = again.facts["resumed_from_step"]
    assert 5 <= resumed <= killed_at < STEPS
    # GPUs add in an order that differs from run to run, so losses agree to rounding.
    assert again.losses == pytest.approx(uninterrupted.losses, rel=0.02)
    measured = {"model": small.name, "resumed_from_step": resumed, "steps": STEPS}
    apart = max(abs(a - b) / b for a, b in zip(again.losses, uninterrupted.losses, strict=True))
    results.add(f"resume zero-{zero}", {**measured, "largest_difference": round(apart, 6)})
