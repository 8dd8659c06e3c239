"""A training with `device: cpu` on a machine that has GPUs."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from tests.support.later import later

later("torch")


def test_a_training_on_the_cpu_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen on an H200: the model was put on the GPU, its data not."""
    from moaa.train import run

    deepspeed = SimpleNamespace(
        ops=SimpleNamespace(__compatible_ops__={}), init_distributed=lambda *a, **more: None
    )
    monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
    monkeypatch.setenv("DS_ACCELERATOR", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(run, "load_data_only", lambda: None)  # loads DeepSpeed
    device, _ = run.prepare_libraries("cpu")
    assert device == "cpu"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
