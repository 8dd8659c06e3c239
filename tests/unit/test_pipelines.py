"""The DAG as Kubeflow sees it: who follows whom, what is cached, and that the committed YAML is what the code compiles to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from moaa.errors import RecipeError
from moaa.recipe.load import load
from pipelines.align import STAGES, build
from pipelines.compiling import compile_recipe, refuse_expanded

RECIPES = sorted(Path("pipelines/recipes").glob("*.yaml"))


def spec(tmp_path: Path, until: str = STAGES[-1]) -> dict[str, Any]:
    from kfp import compiler

    target = tmp_path / "align.yaml"
    compiler.Compiler().compile(build("name: x", until), str(target))
    return yaml.safe_load(target.read_text())


def tasks(pipeline: dict[str, Any]) -> dict[str, Any]:
    return pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_compiling_again_changes_nothing(recipe: Path, tmp_path: Path) -> None:
    compile_recipe(recipe, tmp_path / "again.yaml")
    committed = Path("pipelines/compiled") / recipe.name
    assert committed.read_text() == (tmp_path / "again.yaml").read_text(), "run `make compile` and commit the result"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_default_parameter_is_the_recipe(recipe: Path) -> None:
    pipeline = yaml.safe_load((Path("pipelines/compiled") / recipe.name).read_text())
    assert not {"store", "models", "target"} & set(pipeline)
    default = pipeline["root"]["inputDefinitions"]["parameters"]["recipe"]["defaultValue"]
    assert load(f"{default}\n").recipe == load(recipe).recipe


def test_stages_follow_the_data(tmp_path: Path) -> None:
    after = {name: set(task.get("dependentTasks", ())) for name, task in tasks(spec(tmp_path)).items()}
    assert after == {
        "preflight": set(),
        "prompts": {"preflight"},
        "generate": {"prompts"},
        "sft": {"generate"},
        "sample": {"prompts", "sft"},
        "label": {"sample"},
        "dpo": {"label", "sft"},
        "evaluate": {"prompts", "sft", "dpo"},
    }


def test_the_report_is_made_whatever_happens(tmp_path: Path) -> None:
    root = spec(tmp_path)["root"]["dag"]["tasks"]
    assert root["report"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_what_looks_at_the_world_is_not_cached(tmp_path: Path) -> None:
    pipeline = spec(tmp_path)
    every = {**tasks(pipeline), **pipeline["root"]["dag"]["tasks"]}
    uncached = {name for name, task in every.items() if not task.get("cachingOptions", {}).get("enableCache")}
    assert uncached == {"preflight", "report", "exit-handler-1"}


def test_the_run_id_is_the_backends_own(tmp_path: Path) -> None:
    for name, task in tasks(spec(tmp_path)).items():
        run_id = task["inputs"]["parameters"]["run_id"]
        assert run_id["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}", name


@pytest.mark.parametrize("until", STAGES)
def test_until_ends_with_its_stage(until: str, tmp_path: Path) -> None:
    assert set(tasks(spec(tmp_path, until))) == set(STAGES[: STAGES.index(until) + 1])


@pytest.mark.parametrize(
    "text", ["a: '{{=1+1}}'", "a: $(HOME)", "a: $$5", "a: '{{workflow.name}}'", "a: '{{$.inputs.x}}'", "a: 😀"]
)
def test_text_that_the_backend_would_change_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="Kubeflow"):
        refuse_expanded(text, Path("x.yaml"))


@pytest.mark.parametrize("text", ["a: '{{ bos_token }}'", "a: '{{ m[\"role\"] }}'", "a: it costs $5", "a: $query"])
def test_text_that_arrives_as_written_is_taken(text: str) -> None:
    refuse_expanded(text, Path("x.yaml"))
