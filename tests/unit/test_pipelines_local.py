"""What Kubeflow's local runner does to the recipe of a run: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from moaa.lifeline import runner
from moaa.pipelines import local
from moaa.recipe.load import load_file
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
    monkeypatch.setattr(local, "up_to", lambda name: (ECHO,))
    loaded = load_file(DEMO, [f'generate.mixture.proposers[0].system="{TEXT}"'])
    file = tmp_path / "recipe.yaml"
    file.write_text(loaded.text)
    with runner(tmp_path):
        local._execute(file, "echo", "run-1", tmp_path)
    (given,) = tmp_path.glob("outputs/**/text")
    assert given.read_text() == loaded.text
    assert loaded.recipe.generate.mixture.proposers[0].system == TEXT
