"""The arithmetic of the GPU tests and the files that they write: what needs no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gpu import flops
from tests.gpu.results import Results
from tests.gpu.shapes import SHAPES, Shape

MACHINE = {"gpu": "NVIDIA H100 80GB HBM3", "driver": "580.1", "torch": "2.13.0", "commit": "abc"}


def test_the_flops_of_a_token_follow_the_formula_of_palm() -> None:
    shape = Shape("by-hand", 8, layers=3, heads=2, kv_heads=1, intermediate=16, vocabulary=10)
    weights_of_a_layer = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16 + 2 * 8
    weights = 3 * weights_of_a_layer + 8 + 10 * 8
    assert shape.parameters == weights
    assert flops.flops_per_token(shape, [5]) == 6 * weights + 12 * 3 * 2 * 4 * 5
    # Two conversations that do not see each other: less attention than one of their length.
    assert flops.training_flops(shape, [5, 5]) == 2 * flops.training_flops(shape, [5])
    assert flops.training_flops(shape, [5, 5]) < flops.training_flops(shape, [10])


@pytest.mark.parametrize(("name", "billions"), [("1b", 1.07), ("3b", 2.97)])
def test_the_measured_models_have_the_size_of_their_names(name: str, billions: float) -> None:
    assert SHAPES[name].parameters == pytest.approx(billions * 1e9, rel=0.01)


def test_mfu_is_a_share_of_the_peak_of_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOAA_GPU_PEAK_TFLOPS", raising=False)
    assert flops.mfu(989e12 / 4, "NVIDIA H200") == 0.25
    assert flops.mfu(989e12, "NVIDIA H100 80GB HBM3", gpus=2) == 0.5
    assert flops.peak_tflops("NVIDIA H100 PCIe") == 756
    assert flops.peak_tflops("NVIDIA L40S") == 362
    assert flops.mfu(1e12, "cpu") is None
    monkeypatch.setenv("MOAA_GPU_PEAK_TFLOPS", "2")
    assert flops.mfu(1e12, "cpu") == 0.5


def test_each_part_adds_its_numbers_to_the_machines_file(tmp_path: Path) -> None:
    results = Results(tmp_path / "benchmarks", MACHINE)
    results.add("sft 1b zero-2 packed", {"tokens_per_s": 12345.6, "mfu": 0.4321, "steps": 12})
    results.add("engine 1b", {"tokens_per_s": 9000.0, "peak_memory_gib": None, "calls_at_once": 8})
    later = Results(tmp_path / "benchmarks", {**MACHINE, "commit": "def"})
    later.add("sft 1b zero-2 packed", {"tokens_per_s": 20000.0, "mfu": 0.5, "losses": [2.0, 1.0]})

    assert results.path.name == "gpu-nvidia-h100-80gb-hbm3.json"
    parts = json.loads(results.path.read_text())["parts"]
    assert list(parts) == ["engine 1b", "sft 1b zero-2 packed"]
    assert parts["engine 1b"]["machine"] == MACHINE
    assert parts["sft 1b zero-2 packed"]["losses"] == [2.0, 1.0]

    table = results.path.with_suffix(".md").read_text()
    assert table.startswith("# NVIDIA H100 80GB HBM3\n")
    assert "- commit: abc, def" in table
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert rows[2] == "| engine 1b | 9,000 | - | - | - | - | - | - | calls_at_once 8, commit abc |"
    assert rows[3] == "| sft 1b zero-2 packed | 20,000 | 50.0% | - | - | - | - | - | commit def |"
