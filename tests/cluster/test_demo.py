"""The whole demo recipe on a cluster without Kubeflow, as a user does it: both charts, then `run
--in-cluster`.

Real vLLM in leased Deployments, real TrainJobs of two pods, a real S3, in a namespace that enforces
Pod Security "restricted". It needs the CPU images on the nodes (VARIANT=cpu make images), and half
an hour at the most.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.demo import Demo, demo, run_id
from tests.cluster.tools import needs_cluster, until

pytestmark = [needs_cluster, pytest.mark.timeout(2400)]
STAGES = ["preflight", "prompts", "generate", "sft", "sample", "label", "dpo", "evaluate"]


@pytest.fixture(scope="module")
def made() -> Iterator[Demo]:
    with demo("moaa-demo") as found:
        yield found


def run(made: Demo, folder: Path, *more: str) -> tuple[int, str, float]:
    """Return exit status, output and seconds of the command."""
    begun = time.monotonic()
    with (folder / "output.txt").open("w+") as output:
        process = made.start(folder, *more, output=output)
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


def test_the_whole_demo_and_again_at_once(made: Demo, tmp_path: Path) -> None:
    status, said, seconds = run(made, tmp_path)
    print(f"the demo from the tuning on: {seconds:.0f} s")
    assert status == 0
    found = made.records(said)
    states = {stage: "reused" if stage in ("prompts", "generate") else "done" for stage in STAGES}
    assert {each["stage"]: each["status"] for each in found if each["stage"] in STAGES} == states
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
    assert reused == STAGES[1:]
    assert seconds < 120
    print(yaml.safe_dump({each["stage"]: each["seconds"] for each in found}))


def test_nothing_is_left_after_uninstalling(made: Demo) -> None:
    for release in ("ensemble", "platform"):
        made.ns.helm("uninstall", release, "--wait")
    made.ns.kubectl("delete", "jobs", "--all")
    made.ns.kubectl("delete", "pod/s3", "service/s3", "--wait")
    until(lambda: not made.ns.kubectl("get", "all", "-o", "name").strip(), "an empty namespace", 90)
