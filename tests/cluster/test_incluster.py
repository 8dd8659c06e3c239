"""A run in one Job of a real cluster: what its pod may do, how it is followed, left, stopped, and
replaced.

The pod runs a stand-in for the pipeline (`runner.py`) in a namespace that enforces Pod Security
"restricted".
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa.pipelines import runner_job
from moaa.recipe.load import Loaded, load_file
from tests.cluster.tools import Namespace, namespace, needs_cluster, tried, until
from tests.support.paths import DEMO, EVERY_RECIPE, ROOT

pytestmark = [needs_cluster, pytest.mark.timeout(240)]
IMAGE = "python:3.11-slim"
REAL_JOB = runner_job.job
KINDS = ["runtime.engines.kind=kubernetes", "runtime.launcher.kind=trainer"]


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("pipe-runner", **{"pod-security.kubernetes.io/enforce": "restricted"}) as made:
        text = Path(__file__).with_name("runner.py").read_text()
        keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
        files = {"moaa": f"#!/usr/bin/env python3\n{text}"}
        made.apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": "stand-in"},
                    "data": files,
                },
                {
                    "apiVersion": "v1",
                    "kind": "ServiceAccount",
                    "metadata": {"name": "moaa-pipeline"},
                },
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": "moaa-s3"},
                    "stringData": keys,
                },
            ]
        )
        yield made


def recipe(name: str, ns: Namespace, *sets: str) -> Loaded:
    images = f"runtime.cluster.images={{core: '{IMAGE}', serve: '{IMAGE}'}}"
    return load_file(
        DEMO, [*KINDS, images, f"name={name}", f"runtime.cluster.namespace={ns.name}", *sets]
    )


def job(name: str, ns: Namespace, run_id: str, *sets: str) -> dict[str, Any]:
    """The Job of `run --in-cluster`, with the stand-in where the image has the pipeline, small
    enough for any machine."""
    made = REAL_JOB(recipe(name, ns, *sets), run_id, runner_job.of_run("generate"))
    pod = made["spec"]["template"]["spec"]
    pod["volumes"].append(
        {"name": "stand-in", "configMap": {"name": "stand-in", "defaultMode": 0o555}}
    )
    (container,) = pod["containers"]
    container["volumeMounts"].append({"name": "stand-in", "mountPath": "/stand-in"})
    container["env"].append({"name": "PATH", "value": "/stand-in:/usr/local/bin:/usr/bin:/bin"})
    container["securityContext"]["runAsUser"] = 1000  # our images name a user; this one does not
    container["resources"]["requests"] = {"cpu": "20m", "memory": "64Mi"}
    return made


def pipelines(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
    for name in ("AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL_S3"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "moaa.cli", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def follow(run_id: str, ns: Namespace, folder: Path) -> subprocess.Popen[str]:
    return pipelines("run", "--follow", run_id, "--namespace", ns.name, folder=folder)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def lines_to(words: str, process: subprocess.Popen[str]) -> str:
    """Return its output up to the first line with these words."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    pytest.fail(f"it ended without {words!r}:\n{said}")


def line_with(words: str, process: subprocess.Popen[str]) -> str:
    """Return the first line of its output with these words; then interrupt the process."""
    found = lines_to(words, process).splitlines()[-1]
    process.send_signal(signal.SIGINT)
    return found


def pods(ns: Namespace, run_id: str, *, running: bool = False) -> list[dict[str, Any]]:
    found = ns.items("pods", f"job-name={run_id}")
    return [each for each in found if not running or each["status"]["phase"] == "Running"]


def test_the_pods_of_every_recipe_pass_restricted(ns: Namespace) -> None:
    """Policies refuse pods, not Jobs: create the Job's template as a pod, in a dry run."""
    for path in EVERY_RECIPE:
        loaded = load_file(path, KINDS)
        made = runner_job.job(
            loaded, f"{loaded.recipe.name}-20260101-000000-abcd", runner_job.of_run("evaluate")
        )
        template = made["spec"]["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            **template,
            "metadata": {**template["metadata"], "name": "as-a-pod"},
        }
        for each in (made, pod):
            done = tried(
                "kubectl",
                "-n",
                ns.name,
                "create",
                "--dry-run=server",
                "-f",
                "-",
                given=json.dumps(each),
            )
            assert not done.returncode, done.stderr
            assert "Warning" not in done.stderr, done.stderr


def test_a_run_is_started_followed_and_reported(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start it by the command's own functions, with the stand-in added to their Job."""
    from moaa.pipelines import incluster

    sets = ["generate.mixture.proposers[0].system='Say 😀, $(HOME), {{workflow.name}}, \"$$\"'"]
    loaded = recipe("works", ns, *sets)
    monkeypatch.setattr(
        "moaa.pipelines.runner_job.job",
        lambda loaded, run_id, work: job("works", ns, run_id, *sets),
    )
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        incluster.start(loaded, runner_job.of_run("generate"))
    lines = out.getvalue().splitlines()
    run_id = lines[0].split()[1]
    assert f"recipe {hashlib.sha256(loaded.text.encode()).hexdigest()}" in lines
    assert "arguments --until generate" in lines
    assert f"run {run_id}" in lines
    assert "user 1000 secret set" in lines
    assert "read-only" in lines
    assert [line for line in lines if line.startswith("generate  ")] == [
        f"generate  {n}/3" for n in range(3)
    ]
    assert lines[-1].startswith(
        f"report: s3://moaa/demo/runs/{run_id}/report.html   (not copied here: "
    )


def test_a_failed_run_fails_the_command_at_once(ns: Namespace, tmp_path: Path) -> None:
    ns.apply(job("fails", ns, "fails-1"))
    status, out, err = ended(follow("fails-1", ns, tmp_path))
    assert status == 1
    # Once, as a part of the log; what follows says how the run ended.
    assert out.count("generate failed: 3 of 24 rows were rejected") == 1
    assert "rows were rejected" not in err
    assert err.strip()
    assert len(pods(ns, "fails-1")) == 1, "a run that failed is not tried again"


def test_a_lost_pod_is_replaced_and_followed(ns: Namespace, tmp_path: Path) -> None:
    ns.apply(job("endless", ns, "lost-1"))
    following = follow("lost-1", ns, tmp_path)
    try:
        lines_to("working", following)  # a pod that it never saw is not missed
        (first,) = pods(ns, "lost-1")
        ns.kubectl("delete", "pod", first["metadata"]["name"], "--grace-period=1")
        (second,) = until(
            lambda: [
                each
                for each in pods(ns, "lost-1", running=True)
                if each["metadata"]["uid"] != first["metadata"]["uid"]
            ],
            "its successor",
        )
        said = lines_to("working", following)
        status, _, err = ended(
            pipelines("run", "--stop", "lost-1", "--namespace", ns.name, folder=tmp_path)
        )
        assert status == 0, err
        status, _, err = ended(following)
    finally:
        following.kill()
    assert f"{second['metadata']['name']} continues" in said
    assert status == 1
    assert "there is no run 'lost-1'" in err


def test_ctrl_c_leaves_the_run_and_stop_ends_it(ns: Namespace, tmp_path: Path) -> None:
    ns.apply(job("endless", ns, "left-1"))
    following = follow("left-1", ns, tmp_path)
    line_with("working", following)
    status, out, _ = ended(following)
    assert status == 130
    assert "moaa run --stop left-1 --namespace pipe-runner" in out
    (pod,) = pods(ns, "left-1")
    assert pod["status"]["phase"] == "Running"
    status, out, err = ended(
        pipelines("run", "--stop", "left-1", "--namespace", ns.name, folder=tmp_path)
    )
    assert status == 0, err
    assert "stopped left-1" in out
    assert not pods(ns, "left-1")
    assert tried("kubectl", "-n", ns.name, "get", "job", "left-1").returncode


def test_what_a_run_waits_for_is_said(ns: Namespace, tmp_path: Path) -> None:
    waiting = job("works", ns, "waits-1")
    waiting["spec"]["template"]["spec"]["nodeSelector"] = {"pool": "nosuch"}
    ns.apply(waiting)
    following = follow("waits-1", ns, tmp_path)
    assert "didn't match Pod's node affinity/selector" in line_with(
        "cannot be scheduled", following
    )
    ended(following)
    ns.kubectl("delete", "job", "waits-1")


def test_a_missing_secret_is_said(ns: Namespace, tmp_path: Path) -> None:
    ns.apply(job("works", ns, "secret-1", "runtime.cluster.s3_secret=nosuch"))
    following = follow("secret-1", ns, tmp_path)
    assert 'secret "nosuch" not found' in line_with("CreateContainerConfigError", following)
    ended(following)
    ns.kubectl("delete", "job", "secret-1")


def test_a_missing_account_is_said(ns: Namespace, tmp_path: Path) -> None:
    ns.apply(job("works", ns, "account-1", "runtime.cluster.service_account=nobody"))
    following = follow("account-1", ns, tmp_path)
    assert 'serviceaccount "nobody" not found' in line_with("no pod yet: FailedCreate", following)
    ended(following)
    ns.kubectl("delete", "job", "account-1")
