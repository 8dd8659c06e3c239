"""The command lines of the engines of all recipes for GPUs, read by the CUDA build's own parser."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from moaa.engines.server import Spec, command
from moaa.recipe.load import load_file
from moaa.recipe.schema import Model, Recipe
from tests.support.paths import ROOT

NAMES = ("paper-llama", "paper-gemma", "self-improve")


def installed() -> bool:
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


pytestmark = [
    pytest.mark.without_gpu,
    pytest.mark.skipif(not installed(), reason="vLLM for CUDA is not installed"),
]


def parsed(lines: list[list[str]]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.gpu.parse_arguments"],
        cwd=ROOT,
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def line_of(name: str, model: Model, recipe: Recipe) -> list[str]:
    """What comes after `vllm serve`."""
    gpus = tuple(map(str, range(model.tensor_parallel)))
    args, _ = command(Spec(name, model.source, model, recipe.runtime.engines, "cuda", gpus), 8000)
    assert args[1] == "serve"
    return args[2:]


def test_every_engine_of_the_papers_recipes_is_understood() -> None:
    """One process for all: vLLM takes long to import."""
    recipes = [load_file(ROOT / "pipelines" / "recipes" / f"{name}.yaml").recipe for name in NAMES]
    asked = [
        (name, model, recipe)
        for recipe in recipes
        for name, model in recipe.models.items()
        if not model.endpoint
    ]
    rewards = [
        Model.model_validate({"source": f"org/{task}", "task": task})
        for task in ("reward", "embed")
    ]
    asked += [(model.task, model, recipes[0]) for model in rewards]
    assert {recipe.name for _, _, recipe in asked} == {recipe.name for recipe in recipes}
    done = parsed([line_of(*each) for each in asked])
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for (name, model, _), args in zip(asked, found, strict=True):
        assert args == {
            "model_tag": model.source,
            "served_model_name": [name],
            "tensor_parallel_size": model.tensor_parallel,
            "max_num_seqs": None,  # vLLM's own limit stands
            "max_model_len": model.max_model_len,
            "revision": model.revision,
            "quantization": model.quantization,
            "dtype": model.dtype,
            "generation_config": "vllm",
        }


def test_an_argument_that_vllm_does_not_know_is_refused() -> None:
    done = parsed([["org/name", "--max-num-sequences", "3"]])
    assert done.returncode != 0
    assert "unrecognized arguments: --max-num-sequences" in done.stderr
