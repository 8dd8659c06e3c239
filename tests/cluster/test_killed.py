"""kill -9 of the runner's pod in the middle of each long stage of the demo on a cluster.

A killed pod is replaced and goes on; a run that is gone altogether is submitted again. Either way
no answer that was journaled is asked again, a training is found at work or goes on from its newest
checkpoint, and engines whose leases ran out are scaled down. It needs the CPU images on the nodes
(VARIANT=cpu make images), and a quarter of an hour.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import Artifact
from moaa.errors import StoreError
from moaa.kubernetes.leases import LEASE_S
from tests.cluster.demo import Demo, demo, run_id
from tests.cluster.tools import needs_cluster, run, until
from tests.support.resuming import calls_in_all, journaled, under_way

pytestmark = [needs_cluster, pytest.mark.timeout(1800)]
SETS = [
    "prompts.preference[0].limit=4",
    "sample.sampling.n=3",
    "sft.epochs=4",
    "dpo.epochs=20",
    "runtime.launcher.checkpoint_minutes=0.3",
    "runtime.calls={in_flight: 1, window: 1, timeout_s: 300}",
]
"""One call at a time: no stage may be over before it is killed. Of sft enough steps that a new pod
finds it at work, of dpo (40) that a checkpoint, 2 GB, is on S3 long before the last."""
FLUSH_S = 2.0
REAPED_S = LEASE_S + 60
"""The reaper sees for a whole period that nothing changes."""
KILL = """
import os, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        said = open(f"/proc/{pid}/cmdline").read()
    except OSError:
        continue
    if int(pid) != os.getpid() and all(each in said for each in sys.argv[1:]):
        os.kill(int(pid), 9)
        print(pid)
"""


@pytest.fixture(scope="module")
def made() -> Iterator[Demo]:
    with demo("moaa-killed", *SETS) as found, killer():
        yield found


@contextlib.contextmanager
def killer() -> Iterator[None]:
    """A pod that sees the node's processes: SIGKILL reaches a container's first process only from
    outside."""
    container = {
        "name": "k",
        "image": "python:3.11-slim",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "3600"],
        "securityContext": {"privileged": True},
    }
    spec = {"hostPID": True, "containers": [container], "terminationGracePeriodSeconds": 0}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "killer"}, "spec": spec}
    run("kubectl", "-n", "default", "apply", "-f", "-", given=json.dumps(pod))
    try:
        run(
            "kubectl",
            "-n",
            "default",
            "wait",
            "pod/killer",
            "--for=condition=Ready",
            "--timeout=60s",
        )
        yield
    finally:
        run("kubectl", "-n", "default", "delete", "pod/killer")


def kill(*words: str) -> None:
    """SIGKILL to every process on the node whose command line has all these words."""
    killed = run(
        "kubectl", "-n", "default", "exec", "killer", "--", "python3", "-c", KILL, *words
    ).split()
    assert killed, f"no process has {words}"


class Run:
    """Runs `run --in-cluster --until dpo` in the background and keeps its output."""

    def __init__(self, made: Demo, folder: Path, name: str) -> None:
        self.made, self.file = made, folder / name
        with self.file.open("w") as output:
            self.process = made.start(folder, "--until", "dpo", output=output)

    @property
    def said(self) -> str:
        return self.file.read_text()

    @property
    def id(self) -> str:
        return run_id(self.said)

    def while_it_lives(self, look: Any, what: str, timeout_s: float = 300) -> Any:
        def now() -> Any:
            with contextlib.suppress(
                StoreError
            ):  # a checkpoint is written, or the way there is broken
                return look() or self._lives()

        return until(now, what, timeout_s)

    def _lives(self) -> bool:
        assert self.process.poll() is None, f"the run was over:\n{self.said}"
        return False

    def ends(self, timeout_s: float = 900) -> int:
        status = self.process.wait(timeout_s)
        print(self.said)
        return status

    def lost(self, *more: str) -> None:
        """Kill the runner and the processes with these words, and delete the Job."""
        name = self.id
        self.made.ns.kubectl("delete", "job", name, "--cascade=orphan")
        kill("moaa", "/etc/moaa/recipe.yaml")
        for word in more:
            kill(word)
        assert self.ends(120) == 1
        self.made.ns.kubectl("delete", "pod", "-l", f"job-name={name}")

    def record(self, stage: str) -> Any:
        return next(each for each in self.made.records(self.said) if each["stage"] == stage)


@pytest.fixture
def begun(made: Demo, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    running = Run(made, tmp_path, "output.txt")
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


def in_the_middle(begun: Run, stage: str) -> str:
    """Return the address of the stage's artifact as soon as its journal has something."""
    uri = begun.while_it_lives(
        lambda: under_way(begun.made.store, stage), f"a first answer of {stage}", 900
    )
    time.sleep(FLUSH_S)
    return uri


def nothing_twice(begun: Run, stage: str, found: int) -> None:
    """Check that the next attempt did not ask the `found` calls of the journal again."""
    record = begun.record(stage)
    artifact = Artifact.open(begun.made.store, record["manifest"]["uri"])
    rows = [row["id"] for row in artifact.rows()]
    asked, every = (
        record["ledger"]["models"]["smollm2"]["calls"],
        calls_in_all(stage, begun.made.recipe, artifact),
    )
    print(f"{stage}: of {every} calls {found} were journaled, {asked} were asked after the kill")
    assert found
    assert len(set(rows)) == len(rows)
    assert 0 < asked < every
    assert asked <= every - found


def checkpoint(made: Demo, stage: str) -> int:
    """Return the step of the newest complete checkpoint; 0 if there is none."""
    listed = (
        re.search(r"/checkpoint-(\d+)/manifest.json$", uri)
        for uri, _ in made.store.list(f"{made.store.root}/{stage}")
    )
    return max((int(each[1]) for each in listed if each), default=0)


def test_in_generate_and_sft_the_pod_is_replaced_in_label_the_run_is_gone(
    begun: Run, made: Demo
) -> None:
    generated = in_the_middle(begun, "generate")
    found = journaled(
        made.store, generated, "generate", made.recipe
    )  # before the kill: what the next attempt adds is its own
    kill("moaa", "/etc/moaa/recipe.yaml")

    begun.while_it_lives(
        lambda: re.search(r"^sft +[1-9]\d*/", begun.said, re.MULTILINE), "a step of sft", 600
    )
    assert "continues)" in begun.said, "the follower says that a new pod continues"
    nothing_twice(begun, "generate", found)
    kill("moaa", "/etc/moaa/recipe.yaml")

    labelled = in_the_middle(begun, "label")
    record = begun.record("sft")
    assert record["ledger"]["events"]["trainings found at work"] == 1
    assert record["manifest"]["facts"]["resumed_from_step"] is None, "it was not begun again"
    begun.lost()
    assert journaled(made.store, labelled, "label", made.recipe)
    assert "there is no run" in begun.said

    until(
        lambda: made.ns.get("deployment", "ensemble-smollm2")["spec"]["replicas"] == 0,
        "the reaper",
        REAPED_S,
    )
    until(
        lambda: not made.ns.items("pods", "moaa.dev/model=smollm2"), "the end of the engines", 120
    )


def test_submitted_again_label_goes_on_and_dpo_is_killed_with_its_ranks(
    begun: Run, made: Demo
) -> None:
    labelled = under_way(made.store, "label")
    assert labelled
    found = journaled(
        made.store, labelled, "label", made.recipe
    )  # this run has only begun, and asks after stages to come
    begun.while_it_lives(lambda: checkpoint(made, "dpo"), "a checkpoint of dpo", 900)
    assert [
        begun.record(stage)["status"] for stage in ("prompts", "generate", "sft", "sample")
    ] == ["reused"] * 4
    nothing_twice(begun, "label", found)
    begun.lost("moaa.train")


def test_submitted_again_dpo_goes_on_from_its_checkpoint(begun: Run, made: Demo) -> None:
    step = checkpoint(made, "dpo")
    assert step
    assert begun.ends() == 0
    assert begun.record("label")["status"] == "reused"
    assert begun.record("dpo")["manifest"]["facts"]["resumed_from_step"] >= step
    assert not made.ns.items("trainjobs")
    until(
        lambda: not made.ns.items("pods", "moaa.dev/model=smollm2"), "the end of the engines", 120
    )
