"""An evaluation that trackers get."""

from __future__ import annotations

from moaa import trackers
from moaa.artifacts import Manifest
from moaa.artifacts.manifest import Parent

MANIFEST = Manifest(
    stage="dpo",
    kind="model",
    name="demo",
    uri="s3://moaa/demo/dpo/f1",
    fingerprint="f1",
    schema_version=1,
    created="2026-11-28T12:00:00+00:00",
    parents=(Parent(name="sft", kind="model", uri="s3://moaa/demo/sft/f0", fingerprint="f0"),),
    facts={
        "curve": [
            {"step": 1, "loss": 0.69, "rewards/margins": 0.0},
            {"step": 2, "loss": float("nan"), "rewards/margins": 0.5},
        ],
        "validation": {"curve": [{"step": 0, "loss": 0.7}, {"step": 2, "loss": 0.6}]},
    },
)

ENTRY = trackers.entry_of(MANIFEST, "run-1")
