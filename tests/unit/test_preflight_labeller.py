"""Preflight looks at the models that only score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moaa.preflight import labeller
from moaa.preflight.run import PlannedRun
from moaa.recipe.load import load_file
from moaa.stages.table import LABEL
from moaa.weights.armorm import HEADS
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO


def found(folder: Path, task: str = "reward", name: str = "reward") -> list[tuple[bool, str]]:
    sets = [f"models.rm={{source: '{folder}', task: {task}}}", "label.model=rm"]
    recipe = load_file(DEMO, [*sets, f"label.labeller={name}"]).recipe
    store: Any = MemoryStore()
    run = PlannedRun(recipe, store, [LABEL], local=True)
    return [(each.ok, each.detail) for each in labeller.findings(run, hub_away=False)]


@pytest.mark.parametrize(
    ("config", "ok", "detail"),
    [
        ({"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}, True, "1 label"),
        ({"architectures": ["X3ForSequenceClassification"], "id2label": {"0": "a"}}, True, "1 la"),
        ({"architectures": ["LlamaForCausalLM"]}, False, "LlamaForCausalLM with 2 labels"),
        ({"architectures": ["LlamaForSequenceClassification"], "num_labels": 5}, False, "5 labels"),
        ({}, False, "unknown"),
    ],
)
def test_a_reward_model_has_one_label(
    tmp_path: Path, config: dict[str, Any], ok: bool, detail: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    ((good, said),) = found(tmp_path)
    assert good == ok
    assert detail in said


def test_armorm_needs_its_heads(tmp_path: Path) -> None:
    ((ok, detail),) = found(tmp_path, "embed", "armorm")
    assert not ok
    assert "moaa split-armorm" in detail
    (tmp_path / HEADS).write_bytes(b"")
    assert [ok for ok, _ in found(tmp_path, "embed", "armorm")] == [True]


def test_models_that_no_stage_asks_are_not_looked_at(tmp_path: Path) -> None:
    assert found(tmp_path, "reward", "mixture") == []
