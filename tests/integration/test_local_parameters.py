"""What Kubeflow's local runner does to the recipe of a run: nothing."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from moaa.lifeline import runner
from moaa.pipelines import local
from moaa.recipe.load import load_file, load_text
from tests.support.echo_stage import ECHO
from tests.support.paths import DEMO, ROOT

TEXT = "Say {{$.inputs.parameters['run_id']}}, {{$}}, {{workflow.uid}}, $(HOME) and {{ name }}."


def test_the_local_runner_changes_nothing_in_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, a proposer was told the run's id, and `{{$}}` made the recipe unreadable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")  # for the report: no store
    loaded = load_file(DEMO, [f'generate.mixture.proposers[0].system="{TEXT}"'])
    file = tmp_path / "recipe.yaml"
    file.write_text(loaded.text)
    with runner(tmp_path):
        local._execute(file, [ECHO], "run-1", tmp_path)
    (given,) = tmp_path.glob("outputs/**/text")
    assert given.read_text() == loaded.text
    assert loaded.recipe.generate.mixture.proposers[0].system == TEXT


def test_a_task_gets_the_overrides_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through Kubeflow's own parameters, which know no whole numbers."""
    from kfp import local as kfp_local

    from moaa.pipelines.align import build

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="kfp")
    kfp_local.init(
        runner=kfp_local.SubprocessRunner(use_venv=False),
        pipeline_root=str(tmp_path / "outputs"),
        raise_on_error=False,
    )
    overrides = {"dpo.beta": 0.25, "sft.epochs": 2, "generate.mixture.proposers[0].system": "Hm."}
    build(DEMO.read_text(), (ECHO,), "run-1")(overrides=overrides)
    (given,) = tmp_path.glob("outputs/**/text")
    recipe = load_text(given.read_text()).recipe
    assert (recipe.dpo.beta, recipe.sft.epochs) == (0.25, 2)
    assert recipe.generate.mixture.proposers[0].system == "Hm."
