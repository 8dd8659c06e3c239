"""An evaluation that is killed by SIGKILL goes on: what was answered is not asked again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from moaa.artifacts import Artifact, Draft, Output
from tests.conftest import S3
from tests.support.engine_server import EngineServer
from tests.support.paths import DEMO
from tests.support.resuming import under_way

pytestmark = pytest.mark.real
PROMPTS = 12
MODELS = ("smollm2", "other")
CALLS = PROMPTS * (len(MODELS) + 9)
"""One answer of each model, nine calls of the judge for the pair."""
FLUSH_S = 2.5


@pytest.fixture
def server() -> Iterator[EngineServer]:
    with EngineServer(*MODELS, delay_s=0.3) as server:
        yield server


def stage(s3: S3, server: EngineServer, folder: Path) -> list[str]:
    """The command of the stage on a recipe with two models and prompts of the test's own."""
    data = yaml.safe_load(DEMO.read_text())
    data["store"]["root"] = s3.root
    data["models"]["smollm2"]["endpoint"] = {"url": server.url}
    data["models"]["other"] = {"source": "another", "endpoint": {"url": server.url}}
    data["evaluate"] |= {"contestants": ["base", "other"], "benchmarks": {}}
    data["runtime"]["calls"] = {"in_flight": 4, "window": 4}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(data))
    with Output(s3.store, f"{s3.root}/prompts/own", "prompts") as out:
        for number in range(PROMPTS):
            row = {"id": str(number), "source": "s", "system": None, "turns": [f"Why {number}?"]}
            out.write(row, table="evaluation")
        manifest = out.commit(Draft(stage="prompts", name="own", fingerprint="own"))
    (folder / "prompts").write_text(manifest.to_text())
    paths = [str(folder / "recipe.yaml"), "test", str(folder / "scores")]
    run = [sys.executable, "-m", "tests.support.run_stage", "evaluate"]
    return [*run, *paths, f"prompts={folder / 'prompts'}"]


def test_killed_and_run_again(server: EngineServer, s3: S3, tmp_path: Path) -> None:
    command = stage(s3, server, tmp_path)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not under_way(s3.store, "evaluate"):
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "nothing was journaled within two minutes"
            time.sleep(0.1)
        time.sleep(FLUSH_S)
        process.kill()
        process.wait()
    assert not (tmp_path / "scores").exists(), "it was done before it could be killed"
    server.delay_s = 0
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    manifest: dict[str, Any] = json.loads((tmp_path / "scores").read_text())
    asked = sum(use["calls"] for use in manifest["ledger"]["models"].values())
    assert 0 < asked < CALLS, f"{asked} of {CALLS} calls were asked by the second attempt"
    found = Artifact.open(s3.store, manifest["uri"])
    judged = [(row["id"], row["model_a"], row["model_b"]) for row in found.rows("judgements")]
    assert sorted(judged) == sorted((str(n), "other", "base") for n in range(PROMPTS))
    assert len(list(found.rows("answers"))) == PROMPTS * len(MODELS)
