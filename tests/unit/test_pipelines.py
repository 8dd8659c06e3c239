"""The DAG as Kubeflow sees it: who follows whom, what is cached, and that the committed YAML is
what the code compiles to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from moaa.commands import pipeline as commands
from moaa.errors import RecipeError
from moaa.pipelines.compiling import compile_recipe, refuse_expanded
from moaa.placement.compiled import fields
from moaa.recipe.load import load_file, load_text
from moaa.stages.table import STAGES, up_to
from tests.support.paths import DEMO, EVERY_RECIPE, PAPER, RECIPES, ROOT

pytestmark = pytest.mark.xdist_group("kfp")

NAMES = [stage.name for stage in STAGES]
COMPILED = sorted((ROOT / "pipelines/compiled").glob("*.yaml"))


def spec(tmp_path: Path, until: str = "evaluate") -> dict[str, Any]:
    from kfp import compiler

    from moaa.pipelines.align import build

    target = tmp_path / "align.yaml"
    compiler.Compiler().compile(build("name: x", up_to(until)), str(target))
    return yaml.safe_load(target.read_text())


def tasks(pipeline: dict[str, Any]) -> dict[str, Any]:
    return pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]


@pytest.mark.parametrize("committed", COMPILED, ids=lambda path: path.stem)
def test_compiling_again_changes_nothing(committed: Path, tmp_path: Path) -> None:
    compile_recipe(load_file(RECIPES / committed.name), tmp_path / "again.yaml")
    assert committed.read_text() == (tmp_path / "again.yaml").read_text(), (
        "run `make compile` and commit the result"
    )


@pytest.mark.parametrize("recipe", EVERY_RECIPE, ids=lambda path: path.stem)
def test_the_default_parameter_is_the_recipe(recipe: Path, tmp_path: Path) -> None:
    compile_recipe(load_file(recipe), tmp_path / "align.yaml")
    pipeline = next(yaml.safe_load_all((tmp_path / "align.yaml").read_text()))
    assert not {"store", "models", "target"} & set(pipeline)
    default = pipeline["root"]["inputDefinitions"]["parameters"]["recipe"]["defaultValue"]
    assert load_text(default).recipe == load_file(recipe).recipe


def test_a_short_pipeline_can_be_compiled_for_upload(tmp_path: Path) -> None:
    commands.compile_recipe(DEMO, [], tmp_path / "short.yaml", "sft")
    pipeline = next(yaml.safe_load_all((tmp_path / "short.yaml").read_text()))
    assert set(tasks(pipeline)) == {"preflight", "prompts", "generate", "sft"}
    with pytest.raises(typer.BadParameter, match="'nosuch' is not a stage"):
        commands.compile_recipe(DEMO, [], tmp_path / "short.yaml", "nosuch")


def test_outputs_of_two_stages_have_two_names(tmp_path: Path) -> None:
    """Before, the UI's graph and list of artifacts held eight called `summary`."""
    components = spec(tmp_path)["components"]
    names = [
        name
        for each in components.values()
        for name in each.get("outputDefinitions", {}).get("artifacts", {})
    ]
    assert len(names) == len(set(names)) == 19


def test_stages_follow_the_data(tmp_path: Path) -> None:
    after = {
        name: set(task.get("dependentTasks", ())) for name, task in tasks(spec(tmp_path)).items()
    }
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


def test_the_run_id_is_the_backends_own(tmp_path: Path) -> None:
    for name, task in tasks(spec(tmp_path)).items():
        run_id = task["inputs"]["parameters"]["run_id"]
        assert run_id["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}", name


def test_a_run_on_this_machine_is_tried_once(tmp_path: Path) -> None:
    """Kubeflow's local runner would repeat a failed task: what can heal, the stage has healed
    already."""
    assert not any("retryPolicy" in task for task in tasks(spec(tmp_path)).values())


def test_every_task_is_tried_again_after_an_outside_fault_as_after_a_lost_pod() -> None:
    """Kubeflow's launcher hides the exit status (75), so every failure is tried again: a stage that
    is done is found, and one that waited for its store goes on with what its journal holds."""
    for name, task in tasks(compiled_demo()).items():
        retry = task["retryPolicy"]
        assert (retry["maxRetryCount"], retry["backoffDuration"]) == (2, "5s"), name
        assert retry["backoffMaxDuration"] == "604800s", "a deadline of all attempts together"


def test_every_stage_renews_a_report_that_was_made_before_it() -> None:
    for name, executor in compiled_demo()["deploymentSpec"]["executors"].items():
        source = " ".join(executor["container"]["command"])
        assert ("with renewed(task):" in source) == (name != "exec-report"), name


def compiled_demo() -> dict[str, Any]:
    text = (ROOT / "pipelines/compiled/demo.yaml").read_text()
    found: dict[str, Any] = next(yaml.safe_load_all(text))
    return found


def test_an_images_digest_reaches_the_compiled_tasks(tmp_path: Path) -> None:
    digests = {name: f"r.example/{name}:1@sha256:{name[0] * 64}" for name in ("core", "serve")}
    sets = [f"runtime.cluster.images={json.dumps(digests)}"]
    compile_recipe(load_file(DEMO, sets), tmp_path / "align.yaml", "sample")
    pipeline = next(yaml.safe_load_all((tmp_path / "align.yaml").read_text()))
    executors = pipeline["deploymentSpec"]["executors"].values()
    assert {each["container"]["image"] for each in executors} >= set(digests.values())


def test_preflight_knows_what_was_compiled() -> None:
    pipeline = next(yaml.safe_load_all((ROOT / "pipelines/compiled/paper-llama.yaml").read_text()))
    compiled_from = tasks(pipeline)["preflight"]["inputs"]["parameters"]["compiled_from"][
        "runtimeValue"
    ]["constant"]
    recipe = load_file(PAPER).recipe
    assert json.loads(compiled_from) == fields(recipe, STAGES)
    assert json.loads(compiled_from)["pools.a100.gpus"] == 8


def test_preflight_is_told_how_far_the_run_goes(tmp_path: Path) -> None:
    def told(until: str) -> list[dict[str, str]]:
        compile_recipe(load_file(DEMO), tmp_path / "x.yaml", until)
        pipeline = next(yaml.safe_load_all((tmp_path / "x.yaml").read_text(encoding="utf-8")))
        container = pipeline["deploymentSpec"]["executors"]["exec-preflight"]["container"]
        return [each for each in container["env"] if each["name"] == "MOAA_STAGES"]

    assert told("generate") == [{"name": "MOAA_STAGES", "value": "preflight,prompts,generate"}]
    assert told("evaluate") == []


@pytest.mark.parametrize("until", NAMES)
def test_until_ends_with_its_stage(until: str, tmp_path: Path) -> None:
    assert set(tasks(spec(tmp_path, until))) == set(NAMES[: NAMES.index(until) + 1])


@pytest.mark.parametrize(
    "text",
    [
        "a: '{{=1+1}}'",
        "a: $(HOME)",
        "a: $$5",
        "a: '{{workflow.name}}'",
        "a: '{{$.inputs.x}}'",
        "a: '[[CurrentTime.2006]]'",
        "a: '[[RunUUID]]'",
        "a: 😀",
    ],
)
def test_text_that_the_backend_would_change_is_refused(text: str) -> None:
    assert "Kubeflow" in refused(text)


def refused(text: str) -> str:
    """The error of a recipe with this text; empty if it is taken."""
    try:
        refuse_expanded(text, "x.yaml")
    except RecipeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("padding", range(90, 121, 5))
def test_it_is_refused_wherever_a_line_of_the_resolved_recipe_ends(
    padding: int, tmp_path: Path
) -> None:
    """YAML folds long text, and JSON joins it again."""
    system = f"{'x' * padding} {{{{ workflow.name }}}} and so on"
    with pytest.raises(
        RecipeError, match=r"generate\.mixture\.proposers\[0\]\.system: .*workflow\.name"
    ):
        compile_recipe(
            load_file(DEMO, [f"generate.mixture.proposers[0].system={json.dumps(system)}"]),
            tmp_path / "x.yaml",
        )


@pytest.mark.parametrize(
    "text",
    [
        "Say 😀 and é",
        "a\u2028b\u2029c\x85d\x7fe\x9ff\uffffg",
        "no",
        "12:30",
        "a\nb: 'c' \"d\" \\U0001F600",
        "{{ bos_token }}",
    ],
)
def test_a_default_arrives_as_it_was_written(text: str, tmp_path: Path) -> None:
    target = tmp_path / "x.yaml"
    value = json.dumps(text, ensure_ascii=max(text) <= chr(0xFFFF))
    compile_recipe(load_file(DEMO, [f"generate.mixture.proposers[0].system={value}"]), target)
    written = target.read_text(encoding="utf-8")
    assert not re.search("[^\x00-\uffff]", written)
    default = next(yaml.safe_load_all(written))["root"]["inputDefinitions"]["parameters"]["recipe"][
        "defaultValue"
    ]
    assert load_text(default).recipe.generate.mixture.proposers[0].system == text


@pytest.mark.parametrize(
    "text", ["a: '{{ bos_token }}'", "a: '{{ m[\"role\"] }}'", "a: it costs $5", "a: $query"]
)
def test_text_that_arrives_as_written_is_taken(text: str) -> None:
    assert not refused(text)
