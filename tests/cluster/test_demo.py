"""The whole demo recipe on a cluster without Kubeflow, as a user does it: both charts, then `run
--in-cluster`, up to a promoted version that the gateway serves; then a retraining that is refused.

Real vLLM in leased Deployments and in the slots, real TrainJobs of two pods, a real S3, in a
namespace that enforces Pod Security "restricted". It needs the CPU images on the nodes (VARIANT=cpu
make images), and half an hour at the most.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from moaa.gateway.slots import revision_of
from moaa.registry import production
from tests.cluster.demo import Demo, demo, run_id
from tests.cluster.served import TINY, Served, connected
from tests.cluster.tools import needs_cluster, until

pytestmark = [needs_cluster, pytest.mark.timeout(2400)]
STAGES = ["preflight", "prompts", "generate", "sft", "sample", "label", "dpo", "evaluate"]
DECIDED = ["gate", "publish", "promote"]
SETS = [
    "prompts.evaluation[0].offset=60",
    "prompts.evaluation[0].limit=12",
    "gate={min_prompts: 10, margin: -0.5, floor: 1, benchmark_floor: 1, max_length_ratio: 20, "
    "min_consistency: 0, max_lost_verdicts: 1, "
    "more: {truncated: 0.4, empty: 0.4, repeated: 0.4, refused: 0.4}}",
    "publish={name: aligned}",
    "promote={slots: aligned, steps: [50, 100], hold_s: 5}",
]
"""The gate asks no more of so small a model than answers that are whole: they need ten prompts."""
BAD = ["trainings=sft", "gate.candidate=sft", "sft.learning_rate=0.02"]
"""After a few such steps a model writes no words any more."""
GATEWAY = {"resources": TINY, "drainSeconds": 5, "autoscaling": {"enabled": False}}


@pytest.fixture(scope="module")
def made() -> Iterator[Demo]:
    with demo("moaa-demo", *SETS, gateway=GATEWAY) as found:
        yield found


@pytest.fixture(scope="module")
def served(made: Demo) -> Iterator[Served]:
    with connected(made.ns, made.s3) as found:
        yield found


def run(made: Demo, folder: Path, *more: str, command: str = "run") -> tuple[int, str, float]:
    """Return exit status, output and seconds of the command."""
    begun = time.monotonic()
    with (folder / "output.txt").open("w+") as output:
        process = made.start(folder, *more, output=output, command=command)
        try:
            status = process.wait(2300)
        finally:
            process.kill()
        output.seek(0)
        said = output.read()
    print(said)
    return status, said, time.monotonic() - begun


def test_the_core_image_writes_the_data(made: Demo, tmp_path: Path) -> None:
    status, said, _ = run(made, tmp_path, "--until", "generate")
    assert status == 0
    (pod,) = made.ns.items("pods", f"job-name={run_id(said)}")
    assert "/core:" in pod["spec"]["containers"][0]["image"]
    states = {
        each["stage"]: each["status"] for each in made.records(said) if each["stage"] in STAGES
    }
    assert states == dict.fromkeys(STAGES[:3], "done")


def test_the_whole_demo_and_again_at_once(made: Demo, served: Served, tmp_path: Path) -> None:
    status, said, seconds = run(made, tmp_path)
    print(f"the demo from the tuning on: {seconds:.0f} s")
    assert status == 0
    found = made.records(said)
    states = dict.fromkeys([*STAGES, *DECIDED], "done") | {
        "prompts": "reused",
        "generate": "reused",
    }
    assert {each["stage"]: each["status"] for each in found if each["stage"] in states} == states
    current = production.read(made.store, "aligned").current
    assert current, "the version is in production"
    assert current.run == run_id(said)
    assert set(served.revisions(6)) == {revision_of(current.uri)}
    page = (tmp_path / ".moaa/runs" / run_id(said) / "report.html").read_text()
    assert "smollm2" in page
    assert made.ns.get("deployment", "ensemble-smollm2")["spec"]["replicas"] == 0
    assert not made.ns.items("trainjobs")
    until(
        lambda: not made.ns.items("pods", "moaa.dev/model=smollm2"), "the end of the engines", 120
    )

    again, said, seconds = run(made, tmp_path)
    print(f"again at once: {seconds:.0f} s")
    assert again == 0
    found = made.records(said)
    reused = [each["stage"] for each in found if each["status"] == "reused"]
    assert [stage for stage in reused if stage in STAGES] == STAGES[1:]
    assert production.read(made.store, "aligned").current == current
    assert seconds < 120
    print(yaml.safe_dump({each["stage"]: each["seconds"] for each in found}))


def test_a_bad_retraining_is_refused_and_production_stays(
    made: Demo, served: Served, tmp_path: Path
) -> None:
    before = production.read(made.store, "aligned")
    assert before.current
    sets = [argument for each in BAD for argument in ("--set", each)]
    status, said, _ = run(made, tmp_path, *sets, "--wait", "-o", "out", command="retrain")
    assert status == 3, said
    found = json.loads((tmp_path / "out/retrain.json").read_text())
    assert (found["state"], found["decision"]["against"]) == ("refused", "production")
    assert production.read(made.store, "aligned") == before
    assert set(served.revisions(6)) == {revision_of(before.current.uri)}


def test_nothing_is_left_after_uninstalling(made: Demo) -> None:
    for release in ("ensemble", "platform"):
        made.ns.helm("uninstall", release, "--wait")
    made.ns.kubectl("delete", "jobs", "--all")
    made.ns.kubectl("delete", "pod/s3", "service/s3", "--wait")
    until(lambda: not made.ns.kubectl("get", "all", "-o", "name").strip(), "an empty namespace", 90)
