"""The same training on the GPU and on the CPU: same data, same seed, the same losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import S3
from tests.gpu import shapes
from tests.gpu.conftest import MakeJob
from tests.gpu.machine import device
from tests.gpu.results import Results
from tests.gpu.shapes import Shape
from tests.gpu.training import train

STEPS = 8


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_losses(
    s3: S3, job: MakeJob, small: Shape, results: Results, tmp_path: Path, kind: str
) -> None:
    rows = (shapes.conversations if kind == "sft" else shapes.preferences)(16, 512)
    numbers = {
        "learning_rate": 2e-4 if kind == "sft" else 1e-5,
        "epochs": 8,
        "max_steps": STEPS,
        "global_batch": 4,
        "micro_batch": 2,
        "max_length": 512,
        "zero_stage": 2,
    }
    curves: dict[str, list[float]] = {}
    for on in (device(), "cpu"):
        name = f"{on}-{len(curves)}"
        asked = job(rows, small, numbers, name=name, device=on)
        curves[name] = train(asked, s3.store, tmp_path).losses
    ours, cpu = curves.values()
    # Both compute in bfloat16 (8 bits of a number), each in an order of its own.
    assert ours == pytest.approx(cpu, rel=0.02)
    results.add(
        f"{kind} beside the CPU",
        {
            "model": small.name,
            "steps": STEPS,
            "first_loss": ours[0],
            "last_loss": ours[-1],
            "cpu_last_loss": cpu[-1],
            "losses": ours,
            "cpu_losses": cpu,
        },
    )
