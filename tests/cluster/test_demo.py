"""The whole demo recipe on a cluster without Kubeflow, as a user does it: both charts, then `run --in-cluster`.

Real vLLM in leased Deployments, real TrainJobs of two pods, a real S3, in a namespace that enforces Pod Security
"restricted". It needs the CPU images on the nodes (VARIANT=cpu make images), and half an hour at the most.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from moaa import helm_values
from moaa.recipe.load import Loaded, load
from moaa.stage import records
from tests.charts.render import PLATFORM, SERVING
from tests.cluster.charts import install
from tests.cluster.s3 import S3, s3
from tests.cluster.tools import Namespace, namespace, needs_cluster, until

pytestmark = [needs_cluster, pytest.mark.timeout(2400)]
ROOT = Path(__file__).parents[2]
DEMO = ROOT / "pipelines/recipes/demo-cluster.yaml"
NAME = "moaa-demo"
SETS = [f"runtime.cluster.namespace={NAME}"]
SMALL = {"requests": {"cpu": "500m", "memory": "3Gi"}, "limits": {"cpu": "2", "memory": "8Gi"}}
STAGES = ["preflight", "prompts", "generate", "sft", "sample", "label", "dpo", "evaluate"]


@pytest.fixture(scope="module")
def recipe() -> Loaded:
    return load(DEMO, SETS)


@pytest.fixture(scope="module")
def ns(recipe: Loaded) -> Iterator[Namespace]:
    with namespace(NAME, **{"pod-security.kubernetes.io/enforce": "restricted"}) as made:
        platform = helm_values.platform(recipe.recipe)
        platform["pools"]["default"] |= {"shmGib": 1, "tmpGib": 20}
        platform["kubeflow"] = {"enabled": False}
        install(made, "platform", PLATFORM, platform)
        serving = helm_values.serving(recipe.recipe)
        install(made, "ensemble", SERVING, {**serving, "modelDefaults": {"resources": SMALL}})
        yield made


@pytest.fixture(scope="module")
def store(ns: Namespace) -> Iterator[S3]:
    with s3(ns) as made:
        made.secret(ns)
        yield made


def run(store: S3, folder: Path) -> tuple[int, str, float]:
    """`python -m pipelines run … --in-cluster`: exit status, output, seconds."""
    sets = [argument for each in SETS for argument in ("--set", each)]
    command = [sys.executable, "-m", "pipelines", "run", str(DEMO), "--in-cluster", *sets]
    environment = {**os.environ, **store.outside, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    begun = time.monotonic()
    with (folder / "output.txt").open("w+") as output:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=2300)
        output.seek(0)
        said = output.read()
    print(said)
    return done.returncode, said, time.monotonic() - begun


def run_id(said: str) -> str:
    found = re.search(r"^run +(\S+)", said, re.MULTILINE)
    assert found
    return found[1]


def test_the_whole_demo_and_again_at_once(ns: Namespace, store: S3, recipe: Loaded, tmp_path: Path) -> None:
    status, said, seconds = run(store, tmp_path)
    print(f"the whole demo: {seconds:.0f} s")
    assert status == 0
    outside = type(store.store)(recipe.recipe.store.root, environ=store.outside)
    found = records(outside, run_id(said))
    assert [(each["stage"], each["status"]) for each in found if each["stage"] in STAGES] == [(stage, "done") for stage in STAGES]
    page = (tmp_path / ".moaa/runs" / run_id(said) / "report.html").read_text()
    assert "smollm2" in page
    assert ns.get("deployment", "ensemble-smollm2")["spec"]["replicas"] == 0
    assert not ns.items("trainjobs")
    until(lambda: not ns.items("pods", "moaa.dev/model=smollm2"), "the end of the engines", 120)

    again, said, seconds = run(store, tmp_path)
    print(f"again at once: {seconds:.0f} s")
    assert again == 0
    found = records(outside, run_id(said))
    reused = [each["stage"] for each in found if each["status"] == "reused"]
    assert reused == STAGES[1:]
    assert seconds < 120
    print(yaml.safe_dump({each["stage"]: each["seconds"] for each in found}))


def test_nothing_is_left_after_uninstalling(ns: Namespace, store: S3) -> None:
    for release in ("ensemble", "platform"):
        ns.helm("uninstall", release, "--wait")
    ns.kubectl("delete", "jobs", "--all")
    ns.kubectl("delete", "pod/s3", "service/s3", "--wait")
    until(lambda: not ns.kubectl("get", "all", "-o", "name").strip(), "an empty namespace", 90)
