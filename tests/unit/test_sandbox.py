"""Programs that models wrote: shut in, run with limits, and what is said of them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from moaa.errors import RowRejected
from moaa.kubernetes.kinds import JOBS, PODS, Object
from moaa.recipe.schema import Runtime
from moaa.sandbox import inside, objects, run
from tests.support.kube_server import KubeServer
from tests.support.waiting import until

QUICK = run.Timing(gather_s=0.05, poll_s=0.02)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("assert sorted([2, 1]) == [1, 2]", "passed"),
        ("assert 1 == 2", "AssertionError"),
        ("x =", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os; os._exit(0)", "ended with status 0"),
        ("print('passed')\nraise ValueError", "ValueError"),
        ("while True: pass", "timeout"),
        ("a = bytearray(1 << 31)", "MemoryError"),
    ],
)
def test_a_program_passes_only_if_it_comes_to_its_end(program: str, said: str) -> None:
    assert inside.outcome(program, 1.0 if said == "timeout" else 20.0) == said


def test_programs_travel_in_pieces_that_the_kernel_takes() -> None:
    draw = random.Random(1)
    programs = {
        f"HumanEval/{n}": "".join(draw.choice("abcdefgh \n") for _ in range(4000))
        for n in range(60)
    }
    packed = inside.pack(programs)
    assert len(packed) > 1
    assert max(map(len, packed.values())) < 128 << 10
    assert inside.unpack({"HOME": "/tmp", **packed}) == programs


def test_a_pod_that_is_not_shut_in_is_found(tmp_path: Path) -> None:
    api = {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}
    assert "can be written" in inside.opening(api, [str(tmp_path / "none"), str(tmp_path)])
    assert "is not known" in inside.opening({}, ())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        open_to = {**api, "KUBERNETES_SERVICE_PORT": port}
        assert "the network is open" in inside.opening(open_to, ())
    assert inside.opening(open_to, ()) == ""  # nobody listens there any more
    looks = iter(["open", "open", ""])
    assert inside.wait_until_shut(lambda: next(looks), 60, every_s=0) == ""
    assert inside.wait_until_shut(lambda: "open", 0, every_s=0) == "open"


def test_without_walls_no_program_is_run() -> None:
    """As the pod runs it; this machine has a network and room to write."""
    told = {**inside.pack({"a": "assert True"}), "MOAA_SHUT_WAIT_S": "0"}
    ended = subprocess.run(
        [sys.executable, "-B", "-m", "moaa.sandbox.inside"],
        env={**told, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 3
    (line,) = map(json.loads, ended.stdout.splitlines())
    assert set(line) == {"refused"}


def test_the_pod_has_no_token_no_network_and_nothing_to_write() -> None:
    body = objects.job({"a": "assert True"}, Runtime(), "run-1")
    pod = body["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["hostNetwork"] is False
    assert pod["dnsPolicy"] == "None"
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    assert all(set(each) == {"name", "value"} for each in container["env"])  # no Secret
    assert body["spec"]["backoffLimit"] == 0
    assert body["spec"]["activeDeadlineSeconds"] > 0
    labels = body["spec"]["template"]["metadata"]["labels"]
    assert labels[objects.SANDBOX] == "true"
    assert "app.kubernetes.io/part-of" not in labels  # the policies of those open the network


class Node:
    """Ends each Job that appears with the log that `answer` gives for its programs."""

    def __init__(self, kube: KubeServer, answer: Any) -> None:
        self.kube, self.answer = kube, answer
        self.jobs: list[Object] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(0.01):
            for name in [name for kind, name in list(self.kube.objects) if kind == "jobs"]:
                if all(name != each["metadata"]["name"] for each in self.jobs):
                    self._end(self.kube.find(JOBS, name))

    def _end(self, job: Object) -> None:
        name = job["metadata"]["name"]
        self.jobs.append(job)
        env = job["spec"]["template"]["spec"]["containers"][0]["env"]
        lines = self.answer(inside.unpack({each["name"]: each["value"] for each in env}))
        label = {"batch.kubernetes.io/job-name": name}
        self.kube.put(PODS, {"metadata": {"name": f"{name}-x", "labels": label}, "status": {}})
        self.kube.logs[f"{name}-x", objects.CONTAINER, False] = "\n".join(map(json.dumps, lines))
        ended = {"conditions": [{"type": "Complete", "status": "True"}]}
        self.kube.put(JOBS, {**job, "status": ended})


def outcomes(kube: KubeServer, answer: Any, programs: list[str]) -> tuple[list[Any], list[Object]]:
    node = Node(kube, answer)

    async def all_of_them() -> list[Any]:
        sandbox = run.Sandbox(Runtime(), QUICK, lambda namespace: kube.cluster())
        return await asyncio.gather(*map(sandbox.run, programs), return_exceptions=True)

    try:
        return asyncio.run(all_of_them()), node.jobs
    finally:
        node.close()
        until(lambda: not [name for kind, name in kube.objects if kind == "jobs"])


def test_programs_that_come_together_share_a_job(kube: KubeServer) -> None:
    def answer(programs: dict[str, str]) -> list[dict[str, str]]:
        return [{"id": id, "outcome": text.upper()} for id, text in programs.items()]

    found, jobs = outcomes(kube, answer, ["a", "b", "c"])
    assert found == ["A", "B", "C"]
    assert len(jobs) == 1


def test_what_has_no_outcome_is_rejected_with_its_reason(kube: KubeServer) -> None:
    def first_only(programs: dict[str, str]) -> list[dict[str, str]]:
        return [{"id": next(iter(programs)), "outcome": "passed"}]

    (first, second), _ = outcomes(kube, first_only, ["a", "b"])
    assert first == "passed"
    assert isinstance(second, RowRejected)
    assert "its pod ended before it" in second.detail


def test_a_pod_that_is_open_stops_the_benchmark_only(kube: KubeServer) -> None:
    found, _ = outcomes(kube, lambda programs: [{"refused": "/tmp can be written"}], ["a", "b"])
    assert all(isinstance(each, RowRejected) for each in found)
    assert "not isolated: /tmp can be written" in found[0].detail
    assert "sandbox.enabled=true" in found[0].detail


def test_elsewhere_it_is_said_why_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "This run is on one machine" in run.why_not(Runtime())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert run.why_not(Runtime()) == ""
