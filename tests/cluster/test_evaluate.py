"""`moaa evaluate --in-cluster`, as a user types it: engines leased, HumanEval's programs run in the
sandbox, by the images.

A small server that knows three answers stands in for vLLM. It needs the CPU images on the nodes
(VARIANT=cpu make images).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa import records
from moaa.artifacts import Artifact
from moaa.store import Store
from tests.charts.render import PLATFORM, SERVING
from tests.cluster.charts import fake_engine, install, serving
from tests.cluster.demo import RECIPE, run_id
from tests.cluster.s3 import S3, s3
from tests.cluster.tools import Namespace, namespace, needs_cluster, until
from tests.support.paths import ROOT

pytestmark = [needs_cluster, pytest.mark.timeout(600)]
NAME = "moaa-evaluate"


def problem(number: int, function: str, test: str) -> dict[str, str]:
    """A question in the form of HumanEval's."""
    return {
        "task_id": f"HumanEval/{number}",
        "entry_point": function,
        "prompt": f'def {function}(x: int) -> int:\n    """{function}."""\n',
        "test": f"def check(candidate):\n    assert {test}\n",
    }


PROBLEMS = [
    problem(0, "twice", "candidate(4) == 8"),
    problem(1, "thrice", "candidate(4) == 12"),
    problem(2, "written", "candidate(4) == 4"),
]
ANSWERS = {
    "def twice": "```python\ndef twice(x):\n    return 2 * x\n```",
    "def thrice": "```python\ndef thrice(x):\n    return 2 * x\n```",
    "def written": "```python\ndef written(x):\n    open('/tmp/x', 'w')\n    return x\n```",
}

MARKS = {
    "HumanEval/0": "passed",
    "HumanEval/1": "AssertionError",
    "HumanEval/2": "OSError",  # nothing can be written there
}


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace(NAME, **{"pod-security.kubernetes.io/enforce": "restricted"}) as made:
        fake_engine(made)
        platform = {
            "kubeflow": {"enabled": False},
            "sandbox": {"enabled": True},
            "networkPolicy": {"namespaces": [NAME]},
        }
        install(made, "platform", PLATFORM, platform)
        values: dict[str, Any] = serving({"name": "smollm2", "maxModelLen": 4096})
        fake = values["modelDefaults"]
        env = {**fake["env"], "FAKE_ANSWERS": json.dumps(ANSWERS)}
        install(made, "ensemble", SERVING, {**values, "modelDefaults": {**fake, "env": env}})
        yield made


@pytest.fixture(scope="module")
def store(ns: Namespace) -> Iterator[S3]:
    with s3(ns) as made:
        made.secret(ns)
        rows = "".join(json.dumps(each) + "\n" for each in PROBLEMS)
        made.store.put("s3://moaa/humaneval.jsonl", rows.encode())
        yield made


def evaluated(store: S3, folder: Path, *sets: str) -> str:
    """What the command says."""
    given = (f"runtime.cluster.namespace={NAME}", "evaluate.contestants=[base]", *sets)
    options = [part for each in given for part in ("--set", each)]
    done = subprocess.run(
        [sys.executable, "-m", "moaa.cli", "evaluate", str(RECIPE), "--in-cluster", *options],
        cwd=folder,
        env={**os.environ, **store.outside, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    print(done.stdout)
    return done.stdout


def test_humaneval_by_the_stage_in_a_pod(ns: Namespace, store: S3, tmp_path: Path) -> None:
    data = "evaluate.benchmarks={head_to_head: null, humaneval: {data: [{source: s3://moaa/humaneval.jsonl}]}}"
    said = evaluated(store, tmp_path, data)
    root = Store("s3://moaa/demo", environ=store.outside)
    (record,) = [e for e in records.read(root, run_id(said)) if e["stage"] == "evaluate"]
    assert record["status"] == "done"
    assert record["manifest"]
    scores = Artifact.open(root, record["manifest"]["uri"])
    (main,) = [row for row in scores.rows("scores") if row["main"]]
    assert (main["metric"], main["n"]) == ("pass@1", 3)
    assert main["value"] == pytest.approx(1 / 3)
    assert {row["id"]: row["outcome"] for row in scores.rows("marks")} == MARKS
    page = (tmp_path / ".moaa/runs" / run_id(said) / "report.html").read_text()
    assert "HumanEval" in page
    # Nothing is left: the sandbox's Job, the engine.
    jobs = [each["metadata"]["name"] for each in ns.items("jobs")]
    assert jobs == [run_id(said)]
    assert ns.get("deployment", "ensemble-smollm2")["spec"]["replicas"] == 0
    until(lambda: not ns.items("pods", "moaa.dev/model=smollm2"), "the end of the engine", 60)
