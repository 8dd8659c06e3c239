"""A sweep of the demo with four variants, two of which share what is before the labels."""

from __future__ import annotations

from pathlib import Path

SWEEP = """
name: small
recipe: demo
until: label
set: [plan.gpu_hour_usd=3600]
variants:
  mixture: {about: the paper's}
  random: {set: [label.labeller=random]}
  teacher: {set: [generate.source=teacher, sft.epochs=1], about: one model}
  teacher-random: {set: [generate.source=teacher, sft.epochs=1, label.labeller=random]}
"""


def written(folder: Path, text: str = SWEEP) -> Path:
    """Write a sweep's file into a folder and return its path."""
    path = folder / "small.yaml"
    path.write_text(text)
    return path
