"""A stage of another package, as docs/extending.md writes it: one declaration, one function.

It is planned, compiled, checked, run and reported, and nothing of moaa is edited for it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from moaa.artifacts import Artifact
from tests.conftest import S3
from tests.support.engine_server import EngineServer
from tests.support.paths import DEMO, ROOT

PAGE = (ROOT / "docs/extending.md").read_text()


def block(language: str) -> str:
    """The first code block of the page in this language."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.S)
    assert found
    return found[1]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The folder of an installed package: its module, and its entry points as pip writes them."""
    folder = tmp_path / "site"
    about = folder / "own_stage-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "own_stage.py").write_text(block("python"))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-stage\nVersion: 1.0\n")
    toml = block("toml")
    group = re.search(r'\[project\.entry-points\."(.*)"\]', toml)
    assert group
    entry = toml.splitlines()[-1].replace('"', "")
    (about / "entry_points.txt").write_text(f"[{group[1]}]\n{entry}\n")
    return folder


@pytest.fixture
def recipe(s3: S3, tmp_path: Path) -> Iterator[Path]:
    data = yaml.safe_load(DEMO.read_text())
    data["store"]["root"] = s3.root
    with EngineServer("smollm2") as server:
        data["models"]["smollm2"]["endpoint"] = {"url": server.url}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(data))
        yield path


def moaa(package: Path, recipe: Path, *words: str) -> str:
    packages = os.environ.get("MOAA_PACKAGES", str(ROOT / ".cache" / "pkgs"))
    done = subprocess.run(
        [sys.executable, "-m", "moaa.cli", *words],
        cwd=recipe.parent,
        env={**os.environ, "PYTHONPATH": f"{package}:{ROOT}", "MOAA_PACKAGES": packages},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_planned(package: Path, recipe: Path) -> None:
    planned = moaa(package, recipe, "recipe", "plan", str(recipe))
    (line,) = [line for line in planned.splitlines() if line.startswith("rate")]
    limit = yaml.safe_load(recipe.read_text())["prompts"]["sft"][0]["limit"]
    assert line.split()[:3] == ["rate", "smollm2", str(limit)]


def test_it_is_compiled_after_the_stage_that_it_reads(package: Path, recipe: Path) -> None:
    moaa(package, recipe, "compile", str(recipe), "-o", "align.yaml")
    pipeline, *_ = yaml.safe_load_all((recipe.parent / "align.yaml").read_text())
    tasks = pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert tasks["rate"]["dependentTasks"] == ["prompts"]
    argument = tasks["rate"]["inputs"]["artifacts"]["prompts"]["taskOutputArtifact"]
    assert argument == {"outputArtifactKey": "prompts", "producerTask": "prompts"}


def test_it_is_checked_run_and_reported(package: Path, recipe: Path, s3: S3) -> None:
    printed = moaa(package, recipe, "run", str(recipe), "--until", "rate")
    assert re.search(r"rate +done", printed), printed
    assert "difficulty" in printed
    (manifest,) = [
        uri for uri, _ in s3.store.list(f"{s3.root}/rate/") if uri.endswith("/manifest.json")
    ]
    ratings = list(Artifact.open(s3.store, manifest.removesuffix("/manifest.json")).rows())
    assert {row["difficulty"] for row in ratings} <= {1, 2, 3, 4, 5}
    assert len(ratings) == 8
    page = max((recipe.parent / ".moaa/runs").glob("*/report.html")).read_text()
    assert "How difficult the prompts are" in page

    again = moaa(package, recipe, "run", str(recipe), "--until", "rate")
    assert re.search(r"rate +reused", again), again


def test_preflight_looks_for_the_models_that_it_asks(package: Path, recipe: Path) -> None:
    nobody = ["--set", "models.smollm2.endpoint=null", "--set", "runtime.engines.kind=endpoint"]
    with pytest.raises(AssertionError, match="these models have no `endpoint`: smollm2"):
        moaa(package, recipe, "run", str(recipe), "--until", "rate", *nobody)
