"""One asking stage in a process of its own, for tests that kill it: `… run_stage STAGE RECIPE RUN
OUT NAME=PATH…`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from moaa.task import Task


def main(name: str, recipe: str, run_id: str, output: str, *inputs: str) -> None:
    if name == "sample":
        # the shared engine stands for the tuned model: no other part of the stage is touched
        sample: Any = importlib.import_module("moaa.stages.sample")
        sample.tuned = lambda target, model, artifact: (model, target)
    paths = dict(each.split("=", 1) for each in inputs)
    stage = getattr(importlib.import_module(f"moaa.stages.{name}"), name)
    stage.main(Task(Path(recipe).read_text(), run_id), inputs=paths, output=output)


if __name__ == "__main__":
    main(*sys.argv[1:])
