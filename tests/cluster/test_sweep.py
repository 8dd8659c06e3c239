"""`moaa sweep --in-cluster`: two variants as Jobs share all up to the answers. Chance labels
them in one, in the other a reward model on a leased Deployment.

It needs the CPU images on the nodes (VARIANT=cpu make images).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from moaa import records
from tests.cluster.demo import RECIPE, Demo, demo
from tests.cluster.tools import needs_cluster, until
from tests.support import tiny_rewards
from tests.support.paths import ROOT

pytestmark = [needs_cluster, pytest.mark.timeout(1800)]
NAME = "moaa-sweep"
REWARD = "s3://moaa/models/reward"
SETS = [f"models.reward={{source: '{REWARD}', task: reward, max_model_len: 512}}"]
ONE_POD = "runtime.launcher.nodes=1"
"""Two cores have room for two runners and one pod of a training."""
SHARED = ["prompts", "generate", "sft", "sample"]
SWEEP = {
    "name": "labels",
    "recipe": str(RECIPE),
    "until": "label",
    "set": [f"runtime.cluster.namespace={NAME}", ONE_POD],
    "variants": {
        "chance": {"set": ["label.labeller=random"]},
        "reward": {"set": [*SETS, "label.labeller=reward", "label.model=reward"]},
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The charts, with the reward model in the ensemble, and its weights on S3."""
    reward = [*SETS, "label.labeller=reward", "label.model=reward"]
    with demo(NAME, *reward) as found:
        folder = tmp_path_factory.mktemp("reward")
        tiny_rewards.reward_model(folder)
        found.s3.upload(folder, REWARD)
        yield found


def sweep(made: Demo, folder: Path, *options: str) -> str:
    """What the command says."""
    file = folder / "labels.yaml"
    file.write_text(yaml.safe_dump(SWEEP))
    done = subprocess.run(
        [sys.executable, "-m", "moaa.cli", "sweep", str(file), *options],
        cwd=folder,
        env={**os.environ, **made.s3.outside, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    print(done.stdout)
    return done.stdout


def ended(made: Demo) -> bool:
    """Whether both Jobs have; none may fail."""
    conditions = [
        {each["type"] for each in job["status"].get("conditions", []) if each["status"] == "True"}
        for job in made.ns.items("jobs")
    ]
    failed = any("Failed" in each for each in conditions)
    assert not failed, made.ns.kubectl("logs", "-l", "job-name", "--tail=30", "--prefix")
    return len(conditions) == 2 and all("Complete" in each for each in conditions)


def test_two_variants_at_once_compute_what_they_share_once(made: Demo, tmp_path: Path) -> None:
    sweep(made, tmp_path, "--in-cluster")
    assert len(made.ns.items("jobs")) == 2
    until(lambda: ended(made), "the end of both variants", 1500)
    runs = [job["metadata"]["name"] for job in made.ns.items("jobs")]
    found = [record for run in runs for record in records.read(made.store, run)]
    for stage in SHARED:
        states = sorted(each["status"] for each in found if each["stage"] == stage)
        assert states == ["done", "reused"], stage
    labels = [each["manifest"] for each in found if each["stage"] == "label" and each["manifest"]]
    by = {each["facts"]["labeller"]: each["ledger"]["models"] for each in labels}
    assert by["random"] == {}
    assert by["reward"]["reward"]["calls"] > 0
    assert made.ns.get("deployment", "ensemble-reward")["spec"]["replicas"] == 0
    assert not made.ns.items("trainjobs")
    said = sweep(made, tmp_path, "--compare")
    assert "chance" in said
    assert "reward" in said
    again = sweep(made, tmp_path, "--in-cluster")
    assert len(made.ns.items("jobs")) == 2, again
