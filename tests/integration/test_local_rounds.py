"""Rounds under Kubeflow's own local runner: one that does not win ends the run, and that went well.

Each task is a process of its own. The gate is the real one; what comes before it trains nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from moaa import home, records
from moaa.pipelines import local
from moaa.stages.table import GATE
from tests.conftest import S3
from tests.support.cli import called
from tests.support.paths import DEMO, ROOT
from tests.support.round_stages import DPO, EVALUATE

BAD = ("truncated", "empty", "repeated", "refused")
"""So few prompts prove nothing about these."""


@pytest.fixture
def recipe(s3: S3, tmp_path: Path) -> Path:
    data = yaml.safe_load(DEMO.read_text())
    data["store"]["root"] = s3.root
    data["gate"] = {"more": dict.fromkeys(BAD, 1)}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_third_round_that_does_not_win_ends_the_run(
    recipe: Path, s3: S3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four were allowed."""
    monkeypatch.chdir(recipe.parent)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(local, "of_recipe", lambda *_: (DPO, EVALUATE, GATE))
    status, out, err = called(monkeypatch, capsys, "run", str(recipe), "--rounds", "4")
    assert status == 0, out + err
    assert "2 of 3 rounds won; the model of round 3 was refused, which ended the run." in out
    assert "gate: refuse: dpo against base: wins (" in err
    for number in (2, 3):
        assert f"round {number} of at most 4: smollm2+round-{number - 1} takes its place" in err
    assert "round 4" not in out + err
    last = home.last_run()
    assert last
    found = records.read(s3.store, last.run_id)
    assert [each.get("round", 1) for each in found] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert {each["status"] for each in found} == {"done"}
    folder = recipe.parent / ".moaa" / "runs" / last.run_id
    assert {each.name for each in folder.glob("recipe*.yaml")} == {
        "recipe.yaml",
        "recipe-2.yaml",
        "recipe-3.yaml",
    }
    page = (folder / "report.html").read_text()
    assert "2 of 3 rounds won" in page
    assert "could not be made" not in page
    third = next(each for each in found if each["stage"] == "gate" and each.get("round") == 3)
    assert third["manifest"]
    assert third["manifest"]["facts"]["decision"]["verdict"] == "refuse"

    status, out, err = called(monkeypatch, capsys, "run", str(recipe), "--rounds", "4")
    assert status == 0, out + err
    assert "2 of 3 rounds won" in out, "the same command ends as it did"
    assert err.count("gate: reused s3://") == 3
