"""The pipeline under Kubeflow's local runner, through the command a user types: reuse, failure, the
report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import S3
from tests.support.engine_server import EngineServer
from tests.support.paths import DEMO, ROOT


@pytest.fixture
def recipe(s3: S3, tmp_path: Path) -> Path:
    data = yaml.safe_load(DEMO.read_text())
    data["store"]["root"] = s3.root
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def run(recipe: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """In a folder of its own, so that logs and reports lie apart from the developer's."""
    packages = os.environ.get("MOAA_PACKAGES", str(ROOT / ".cache" / "pkgs"))
    command = [sys.executable, "-m", "moaa.cli", "run", str(recipe), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MOAA_PACKAGES": packages}
    return subprocess.run(
        command,
        cwd=recipe.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def report_of(recipe: Path) -> str:
    return max(
        (recipe.parent / ".moaa" / "runs").glob("*/report.html"),
        key=lambda path: path.stat().st_mtime,
    ).read_text()


def test_a_run_is_reused_and_reported(recipe: Path) -> None:
    first = run(recipe, "--until", "prompts")
    assert first.returncode == 0, first.stderr
    assert "preflight: " in first.stderr
    shown = first.stdout + first.stderr
    assert "executor_input" not in shown, "Kubeflow's own lines stay in the log"
    again = run(recipe, "--until", "prompts", "-v")
    assert "prompts: looking for s3://" in again.stderr, "-v reaches the stages"
    assert again.returncode == 0, again.stderr
    assert "prompts: reused s3://" in again.stderr
    assert "report: " in again.stdout
    assert "<html" in report_of(recipe)


def test_quiet_leaves_the_result(recipe: Path) -> None:
    done = run(recipe, "--until", "preflight", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    assert "report: " in done.stdout


def test_a_failed_stage_ends_the_output_with_its_own_error(recipe: Path) -> None:
    """Every call of the mixture is refused: rows are rejected until that is certain, and the table
    of reasons is the last that is seen."""
    with EngineServer("smollm2") as server:
        data = yaml.safe_load(recipe.read_text())
        data["models"]["smollm2"]["endpoint"] = {"url": server.url}
        data["generate"]["mixture"]["min_proposers"] = 3
        data["generate"]["mixture"]["proposers"][0]["sampling"]["stop"] = ["refuse me"]
        recipe.write_text(yaml.safe_dump(data))
        server.refuse = lambda body: "refuse me" in body.get("stop", ())
        failed = run(recipe, "--until", "generate")
    assert failed.returncode == 1
    rows = data["prompts"]["sft"][0]["limit"]
    enough = int(data["runtime"]["max_rejected_share"] * rows) + 1
    error = f"generate failed: {enough} of {rows} rows were rejected"
    assert (failed.stdout + failed.stderr).count(error) == 1, "an error is shown once"
    last = failed.stderr[failed.stderr.index(error) :]
    assert "too few proposals" in last
    assert "Traceback" not in failed.stderr
    page = report_of(recipe)
    assert "too few proposals" in page, "the report is made on failure too"


def test_a_preflight_that_fails_says_how_to_fix_it(recipe: Path) -> None:
    data = yaml.safe_load(recipe.read_text())
    data["runtime"]["secret_envs"] = ["TEST_TOKEN_OF_MINE"]
    recipe.write_text(yaml.safe_dump(data))
    failed = run(recipe)
    assert failed.returncode == 1
    assert "preflight failed: 1 of" in failed.stderr
    assert "TEST_TOKEN_OF_MINE" in failed.stderr
    assert "fix: export TEST_TOKEN_OF_MINE=" in failed.stderr


def test_an_unknown_stage_and_a_wrong_field_are_refused_before_anything_starts(
    recipe: Path,
) -> None:
    unknown = run(recipe, "--until", "training")
    assert unknown.returncode == 2
    assert "'training' is not a stage" in unknown.stderr
    wrong = run(recipe, "--set", "dpo.betta=1")
    assert wrong.returncode == 1
    assert "Did you mean" in wrong.stderr
    assert not (recipe.parent / ".moaa").exists()
