"""A stage that is killed while it asks goes on where it was: by the engine's own count, no finished
answer is asked again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from moaa.artifacts import Artifact, Draft, Output
from moaa.recipe.load import load_file
from tests.conftest import S3
from tests.support.paths import DEMO
from tests.support.real_engine import RealEngine
from tests.support.resuming import calls_in_all, journaled, under_way

pytestmark = [pytest.mark.real, pytest.mark.timeout(3000)]
FLUSH_S = 2.0
PROMPTS = 5
PROBE = 1
"""An attempt's first request is the one-token answer that says that the engine is ready."""


@pytest.fixture
def recipe(engine: RealEngine, s3: S3, tmp_path: Path) -> Path:
    """The demo's recipe on the shared engine: few prompts, short answers, few in flight, so that
    there is a middle to kill in."""
    data = yaml.safe_load(DEMO.read_text())
    data["store"]["root"] = s3.root
    data["models"]["smollm2"] |= engine.as_model()
    data["runtime"]["calls"] = {"in_flight": 4, "window": 4}
    for name in ("sft", "preference"):
        data["prompts"][name][0]["limit"] = PROMPTS
    data["prompts"]["evaluation"][0]["limit"] = 1
    mixture, judge = data["generate"]["mixture"], data["label"]["judge"]
    for member in (
        *mixture["proposers"],
        mixture["aggregator"],
        *judge["proposers"],
        judge["aggregator"],
    ):
        member["sampling"] |= {"max_tokens": 32, "stop": []}
    data["sample"]["sampling"] |= {"max_tokens": 48, "n": 3, "stop": []}
    for stage in ("generate", "label"):
        data[stage]["cut_answers"] = "keep"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


class Stages:
    """Runs stages in processes of their own; their manifests and logs lie in `folder`."""

    def __init__(self, recipe: Path, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder

    def start(self, name: str, *inputs: str) -> subprocess.Popen[bytes]:
        paths = [
            f"{given}={self.folder / source}"
            for given, _, source in (each.partition("=") for each in inputs)
        ]
        arguments = [name, str(self.recipe), "test", str(self.folder / name), *paths]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.support.run_stage", *arguments],
                stdout=log,
                stderr=log,
            )

    def run(self, name: str, *inputs: str) -> dict[str, Any]:
        code = self.start(name, *inputs).wait(1200)
        assert code == 0, (self.folder / f"{name}.log").read_text()[-3000:]
        return json.loads((self.folder / name).read_text())


def kill_in_the_middle(stages: Stages, s3: S3, name: str, *inputs: str) -> str:
    """SIGKILL once something is journaled; gives the address that the stage was writing to."""
    process = stages.start(name, *inputs)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None, (
            "it was done before it could be killed:\n" + (stages.folder / f"{name}.log").read_text()
        )
        if uri := under_way(s3.store, name):
            time.sleep(FLUSH_S)
            process.kill()
            process.wait()
            return uri
        time.sleep(0.1)
    raise AssertionError("nothing was journaled within ten minutes")


@pytest.mark.parametrize("name", ["generate", "sample", "label"])
def test_killed_and_run_again(
    name: str, recipe: Path, engine: RealEngine, s3: S3, tmp_path: Path
) -> None:
    stages = Stages(recipe, tmp_path)
    stages.run("prompts")
    with Output(s3.store, f"{s3.root}/sft/none", "model") as nothing:
        model = nothing.commit(Draft(stage="sft", name="none", fingerprint="none"))
    (tmp_path / "sft").write_text(model.to_text())
    inputs = {"generate": ["prompts"], "sample": ["prompts", "sft"], "label": ["samples=sample"]}[
        name
    ]
    inputs = [each if "=" in each else f"{each}={each}" for each in inputs]
    if name == "label":
        stages.run("sample", "prompts=prompts", "sft=sft")
    if name == "sample":  # so that one request takes long enough to be killed in
        text = yaml.safe_load(recipe.read_text())
        text["runtime"]["calls"] = {"in_flight": 1, "window": 1}
        recipe.write_text(yaml.safe_dump(text))

    uri = kill_in_the_middle(stages, s3, name, *inputs)
    read = load_file(recipe).recipe
    found = journaled(s3.store, uri, name, read)
    assert found, "the kill came before the first answer was journaled"
    time.sleep(2)  # the engine drops what nobody waits for any more
    before = engine.requests()
    manifest = stages.run(name, *inputs)
    asked = engine.requests() - before - PROBE

    use = manifest["ledger"]["models"]["smollm2"]
    assert use["calls"] == asked, "the ledger counts what the engine counted"
    artifact = Artifact.open(s3.store, uri)
    rows = list(artifact.rows())
    assert len({row["id"] for row in rows}) == len(rows), "nothing is doubled"
    assert (
        len(rows)
        + manifest["rows"].get("rejected", 0)
        + manifest["ledger"]["rows"].get("unclear", 0)
        == PROMPTS
    )

    every = calls_in_all(name, read, artifact)
    assert 0 < asked < every, f"{asked} of {every} calls were asked by the second attempt"
    assert asked <= every - found, (
        f"of {every} calls {found} were journaled, and yet {asked} were asked by the second attempt"
    )
    assert not [each for each, _ in s3.store.list(f"{uri}/journal")], (
        "the journal goes once the result is committed"
    )

    again = engine.requests()
    stages.run(name, *inputs)
    assert engine.requests() == again, "a finished stage asks nothing"
