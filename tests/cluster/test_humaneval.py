"""HumanEval by the stage `evaluate`: answers asked, their programs run in the sandbox of a real
cluster, the share of right ones scored. `test_evaluate.py` does it by the images."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import Artifact, Draft, Output
from moaa.kubernetes.api import Cluster
from moaa.recipe.load import load_file
from moaa.sandbox import inside, objects
from moaa.sandbox.run import Sandbox, Timing
from tests.cluster.charts import IMAGE, without_reaper
from tests.cluster.leased import connected
from tests.cluster.test_evaluate import ANSWERS, MARKS, PROBLEMS
from tests.cluster.tools import Namespace, namespace, needs_cluster, until
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

pytestmark = [needs_cluster, pytest.mark.timeout(300)]
NAME = "guarded-humaneval"


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace(NAME) as made:
        values = {"images": {"core": IMAGE, "train": IMAGE}, "sandbox": {"enabled": True}}
        without_reaper(made, values)
        yield made


def solved(body: dict[str, Any]) -> str | None:
    question = body["messages"][-1]["content"]
    return next((answer for part, answer in ANSWERS.items() if part in question), None)


def test_the_stage_runs_what_the_model_wrote_in_the_sandbox(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(inside.__file__).read_text()  # the image of these tests has no moaa
    monkeypatch.setattr(objects, "COMMAND", ("python3", "-B", "-c", source))
    stage = importlib.import_module("moaa.stages.evaluate")
    file = tmp_path / "humaneval.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in PROBLEMS))
    store = MemoryStore()
    with Output(store, f"{store.root}/prompts/x", "any") as out:
        prompts = Artifact(store, out.commit(Draft(stage="prompts", name="n", fingerprint="p")))
    with (
        connected(os.environ["KUBECONFIG"], NAME) as cluster,
        EngineServer("smollm2") as server,
    ):

        def connect(namespace: str | None) -> Cluster:
            return cluster

        quick = partial(Sandbox, timing=Timing(gather_s=1, poll_s=0.5), connect=connect)
        monkeypatch.setattr(stage, "Sandbox", quick)
        server.say = solved
        sets = [
            f"models.smollm2.endpoint={{url: '{server.url}'}}",
            "runtime.engines.kind=kubernetes",
            f"runtime.cluster={{namespace: {NAME}, images: {{core: '{IMAGE}'}}}}",
            "evaluate.contestants=[base]",
            "evaluate.benchmarks={head_to_head: null, "
            f"humaneval: {{data: [{{source: '{file}'}}]}}}}",
        ]
        manifest, _ = stage.evaluate.run(load_file(DEMO, sets).recipe, store, {"prompts": prompts})
    scores = Artifact(store, manifest)
    (main,) = [row for row in scores.rows("scores") if row["main"]]
    assert (main["metric"], main["n"]) == ("pass@1", len(PROBLEMS))
    assert main["value"] == pytest.approx(1 / 3)
    assert {row["id"]: row["outcome"] for row in scores.rows("marks")} == MARKS
    until(lambda: not ns.items("jobs"), "the Job to be gone")
