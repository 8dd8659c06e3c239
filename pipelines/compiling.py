"""The pipeline as the YAML that Kubeflow takes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from moaa.errors import RecipeError
from moaa.recipe.load import load
from pipelines.align import build

EXPANDED = re.compile(r"\{\{\s*(=|\$|workflow\.|inputs|pod\.|retries|tasks|outputs)[^}]*\}\}|\$\([A-Za-z_][\w.-]*\)|\$\$")
"""What Argo, Kubeflow or the kubelet would replace in a parameter's text: it would not arrive as written."""


def compile_recipe(recipe: Path, target: Path, sets: Sequence[str] = ()) -> None:
    """Write the pipeline with the resolved recipe as its default to `target`.

    Raises RecipeError for text that the backend would change on the way.
    """
    from kfp import compiler

    resolved = load(recipe, sets).text
    refuse_expanded(resolved, recipe)
    # On one line (JSON is YAML): kfp writes defaults into the YAML's head as they are, and a second line would leave the comment.
    text = json.dumps(yaml.safe_load(resolved), ensure_ascii=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(build(text), str(target))


def refuse_expanded(text: str, recipe: Path) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if found := EXPANDED.search(line):
            raise RecipeError(
                f"{recipe}: the resolved recipe holds {found.group()!r} (its line {number}), which Kubeflow would replace. "
                "Write it in another way."
            )
        if wide := next((c for c in line if ord(c) > 0xFFFF), None):
            raise RecipeError(
                f"{recipe}: the resolved recipe holds {wide!r} (its line {number}), which Kubeflow's database refuses."
            )
