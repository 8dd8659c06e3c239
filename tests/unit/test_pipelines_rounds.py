"""Rounds as Kubeflow sees them: each inside of a condition on the gate of the one before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from moaa.pipelines import tasks
from moaa.pipelines.compiling import compile_recipe
from moaa.recipe.load import load_file
from moaa.stages.table import REPORT, of_recipe
from tests.support.paths import DEMO

pytestmark = pytest.mark.xdist_group("kfp")


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    target = tmp_path_factory.mktemp("compiled") / "two.yaml"
    compile_recipe(load_file(DEMO, ["gate={}", "rounds=2"]), target)
    found: dict[str, Any] = next(yaml.safe_load_all(target.read_text()))["components"]
    return found


def test_the_second_round_runs_only_if_the_gate_promotes(components: dict[str, Any]) -> None:
    first = components["comp-exit-handler-1"]["dag"]["tasks"]
    (group,) = [name for name in first if name.startswith("condition")]
    condition = first[group]["triggerPolicy"]["condition"]
    assert first[group]["taskInfo"]["name"] == "round-2"
    assert "gate-verdict" in condition
    assert "'promote'" in condition
    assert first[group]["dependentTasks"] == ["gate"]


def test_the_second_round_has_the_stages_of_the_first_and_the_gates_recipe(
    components: dict[str, Any],
) -> None:
    first = components["comp-exit-handler-1"]["dag"]["tasks"]
    (group,) = [name for name in components if name.startswith("comp-condition")]
    second = components[group]["dag"]["tasks"]
    stages = {name for name in first if not name.startswith("condition")} - {"preflight"}
    assert {name.removesuffix("-2") for name in second} == stages
    names = {task["taskInfo"]["name"] for task in second.values()}
    assert names == {f"{name} of round 2" for name in stages}
    for task in second.values():
        given = task["inputs"]["parameters"]
        assert given["recipe"]["componentInputParameter"].endswith("gate-next_recipe")
        assert given["overrides"]["runtimeValue"]["constant"] == {}


def test_without_a_gate_in_the_run_there_is_one_round(tmp_path: Path) -> None:
    compile_recipe(load_file(DEMO, ["gate={}", "rounds=2"]), tmp_path / "one.yaml", until="dpo")
    assert "round-2" not in (tmp_path / "one.yaml").read_text().replace("round-2.", "")


def test_the_runner_s_pod_has_room_for_every_round() -> None:
    sets = ["gate={}", "rounds=2", "runtime.engines.kind=kubernetes"]
    sets += ["runtime.launcher.kind=trainer"]
    recipe = load_file(DEMO, sets).recipe
    place = tasks.runner(recipe, [*of_recipe(recipe, "generate"), REPORT])
    assert "serve" in place.image, "round 2 serves the winner of round 1"
