"""Overrides: values by their paths, from `--set` and from the pipeline's second parameter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from moaa.errors import RecipeError
from moaa.placement import compiled
from moaa.recipe.load import load_file, load_text
from moaa.recipe.read import one_line, plain, read
from moaa.stages import preflight
from moaa.stages.table import stages
from moaa.task import Task
from tests.support.paths import DEMO
from tests.support.recipes import SMALL, refused_text


@pytest.mark.parametrize(
    "sets",
    [
        ["dpo.beta=0.3"],
        ["dpo={beta: 0.3, epochs: 2}", "dpo.beta=0.4"],
        ["dpo.beta=0.4", "dpo={beta: 0.3}"],
        ["generate.mixture.proposers[0].system=file:system.txt"],
        ["generate.mixture.proposers.0.sampling.temperature=1"],
        ['models."big.one"={source: org/big}', "store.root=s3://b/p"],
    ],
)
def test_a_recipe_without_its_sets_and_the_overrides_are_the_recipe_with_its_sets(
    sets: list[str], tmp_path: Path
) -> None:
    """So a submitted run shows its settings in Kubeflow's UI, where they can be changed."""
    (tmp_path / "recipe.yaml").write_text(DEMO.read_text())
    (tmp_path / "system.txt").write_text("Be brief.")
    loaded = load_file(tmp_path / "recipe.yaml", sets)
    through_kubeflow = json.loads(json.dumps(loaded.overrides, sort_keys=True))
    assert load_text(loaded.base, overrides=through_kubeflow).recipe == loaded.recipe
    assert load_text(loaded.base).recipe == load_file(tmp_path / "recipe.yaml").recipe


def test_a_whole_number_is_one_again() -> None:
    """Kubeflow's objects hold no whole numbers, and `sft.epochs` takes no 2.0."""
    overrides: dict[str, Any] = {"sft.epochs": 2.0, "dpo": {"beta": 1.0, "epochs": 3.0}}
    recipe = load_text(DEMO.read_text(), overrides=overrides).recipe
    assert (recipe.sft.epochs, recipe.dpo.beta, recipe.dpo.epochs) == (2, 1.0, 3)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"dpo.bata": 1}, r"^overrides dpo\.bata is not a known field. Did you mean"),
        ({"dpo.beta": "x"}, r"^overrides dpo\.beta is \"x\""),
        ({"": 1}, r"^overrides : write a path and a value"),
        ({"dpo..beta": 1}, r"^overrides dpo\.\.beta: write a path and a value"),
        ({"generate.mixture.proposers[99].system": "x"}, r"is a list of .*'99' is none"),
        (
            {
                "generate.mixture.proposers[0].system": "x",
                "generate.mixture.proposers.0.system": "",
            },
            r"this is the same field as overrides generate\.mixture\.proposers\[0\]\.system",
        ),
        ({"extends": "/etc/passwd"}, "extends is not a known field"),
        ({"generate.mixture.proposers[0].system": "file:/etc/passwd"}, "Write the text itself"),
        ({"generate.mixture.proposers[0].system": "sk-" + "a" * 20}, "begins like a secret"),
    ],
)
def test_a_wrong_override_is_named_with_its_path(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_text(DEMO.read_text(), overrides=overrides)


def test_a_secret_that_is_replaced_is_refused_nevertheless(tmp_path: Path) -> None:
    """The text without the overrides goes to S3 too."""
    (tmp_path / "r.yaml").write_text(SMALL.replace("name: small", f"name: sk-{'a' * 20}"))
    with pytest.raises(RecipeError, match="begins like a secret"):
        load_file(tmp_path / "r.yaml", ["name=mine"])


def test_yaml_that_lost_its_line_ends_says_so() -> None:
    """Kubeflow's form has one line: pasted YAML arrives as `name: minestore:  root: s3://…`."""
    with pytest.raises(RecipeError, match=r"this is not YAML.*Its line ends are lost.*--json"):
        load_text(SMALL.replace("\n", ""))
    with pytest.raises(RecipeError) as caught:
        load_text('{"name": 1, "models": {}}')
    assert "line ends" not in str(caught.value)


def test_a_recipe_on_one_line_is_the_same_recipe() -> None:
    loaded = load_file(DEMO, ["generate.mixture.proposers[0].system=Say 😀\u2028 and\nmore."])
    line = one_line(plain(read(loaded.text, "r", [])))
    assert "\n" not in line
    assert max(line) <= "\uffff"
    assert load_text(line).recipe == loaded.recipe
    assert json.loads(one_line({"a": [1, "b"]})) == {"a": [1, "b"]}


def test_overrides_are_compared_with_what_the_pipeline_was_compiled_for() -> None:
    compiled_from = json.dumps(compiled.fields(load_file(DEMO).recipe, stages()))
    same = Task(DEMO.read_text(), "r", {"dpo.beta": 0.3}).load().recipe
    assert all(each.ok for each in preflight.agreement(same, compiled_from))
    other = Task(DEMO.read_text(), "r", {"runtime.secret_envs": ["MINE"]}).load().recipe
    (found,) = preflight.agreement(other, compiled_from)
    assert found.detail.startswith("runtime.secret_envs: the pipeline was compiled with []")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("dpo.beta", -1, "dpo.beta is -1. It must be greater than 0."),
        ("sample.sampling.n", 1, "sample.sampling.n must be at least 2: a preference needs two"),
        ("target", "no", "target: 'no' is not one of `models` (m, other)."),
        ("evaluate.contestants", [], "evaluate.contestants is []. It must have at least 1 item."),
        ("dppo.beta", 1, "dppo.beta: dppo is not a known field. Did you mean 'dpo'?"),
    ],
)
def test_a_mistake_names_the_replaced_field_once(field: str, value: Any, said: str) -> None:
    (line,) = refused_text(SMALL, f"{field}={value}")
    assert line.startswith(f"--set {said}")
    with pytest.raises(RecipeError, match=f"^overrides {re.escape(said)}"):
        load_text(SMALL, overrides={field: value})
