"""The charts on a real cluster, in a namespace that enforces Pod Security "restricted": installed,
tested, upgraded, uninstalled.

vLLM is a small server from a ConfigMap; probes, drains, leases, rights and policies are the real
ones.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moaa.kubernetes.kinds import DEPLOYMENTS
from tests.charts.render import EXAMPLES, PLATFORM, SERVING, golden, parsed
from tests.cluster.charts import (
    ALWAYS,
    IMAGE,
    LEASED,
    START_S,
    client,
    fake_engine,
    install,
    names,
    pods,
    ready,
    serving,
)
from tests.cluster.leased import connected, hold, holders
from tests.cluster.tools import Namespace, namespace, needs_cluster, run, tried, until

pytestmark = needs_cluster


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("charts-restricted", pod_security_kubernetes_io__enforce="restricted") as made:
        yield made


@pytest.fixture(scope="module")
def before(ns: Namespace) -> set[str]:
    """What the namespace holds before a chart was there."""
    return names(ns)


@pytest.fixture(scope="module")
def platform(ns: Namespace, before: set[str]) -> str:
    install(
        ns,
        "platform",
        PLATFORM,
        {"images": {"core": IMAGE, "train": IMAGE}, "reaper": {"enabled": False}},
    )
    return "platform"


@pytest.fixture(scope="module")
def engines(ns: Namespace, before: set[str]) -> str:
    fake_engine(ns)
    install(ns, "ens", SERVING, serving(ALWAYS, LEASED))
    return "ens"


def lease(ns: Namespace, model: str, count: int, *holders: str) -> None:
    """As engines do it: a lease, and the number of replicas by the subresource for it."""
    ns.kubectl("delete", "leases", "-l", "moaa.dev/holds")
    for holder in holders:
        hold(ns, f"ens-{model}", holder)
    with connected(os.environ["KUBECONFIG"], ns.name) as cluster:
        patch = {"spec": {"replicas": count}}
        cluster.patch(DEPLOYMENTS, f"ens-{model}/scale", patch)


def replicas(ns: Namespace, model: str) -> int:
    return ns.get("deployment", f"ens-{model}")["spec"]["replicas"]


def test_both_install_in_a_restricted_namespace(ns: Namespace, platform: str, engines: str) -> None:
    """`--wait` saw the pod that is always on; a refusal by a policy would be an event."""
    assert len(pods(ns, "always")) == 1
    assert (replicas(ns, "always"), replicas(ns, "leased")) == (1, 0)
    refused = [
        each["message"]
        for each in ns.items("events")
        if "violates PodSecurity" in each.get("message", "")
    ]
    assert not refused


def test_the_cluster_takes_every_object_of_every_example(ns: Namespace) -> None:
    """Kubernetes' own check, on the server; kinds whose definitions this cluster lacks are checked
    by tests/charts alone."""
    table = run("kubectl", "api-resources", "--no-headers")
    known = {line.split()[-1] for line in table.splitlines()}
    for example in EXAMPLES:
        found = parsed(golden(example).read_text())
        there = [each for each in found if each["kind"] in known]
        assert {each["kind"] for each in found} - {each["kind"] for each in there} <= {
            "ServiceMonitor",
            "ScaledObject",
            "HTTPRoute",
        }
        for each in there:
            each["metadata"].pop("namespace", None)
            if each["kind"] == "Pod":
                each["spec"].pop(
                    "serviceAccountName", None
                )  # nothing is made, so its account is not there either
            for subject in each.get("subjects", []):
                subject["namespace"] = ns.name
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": there})
        done = tried(
            "kubectl",
            "-n",
            ns.name,
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
            given=text,
        )
        assert not done.returncode, f"{example}: {done.stderr}"
        assert "would violate PodSecurity" not in done.stderr, f"{example}: {done.stderr}"


def helm_test(ns: Namespace, release: str) -> str:
    """What it says, with the logs of its pods (on standard error)."""
    done = tried("helm", "test", release, "-n", ns.name, "--timeout", "90s")
    assert not done.returncode, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_helm_test_passes_and_says_what_it_saw(ns: Namespace, platform: str, engines: str) -> None:
    said = helm_test(ns, "ens")
    assert "ok    Always-1B: answered, 1 token" in said
    assert "ok    leased: leased, its address is" in said
    said = helm_test(ns, "platform")
    assert "FAIL" not in said
    assert "ok    create trainjobs trainer.kubeflow.org: yes" in said
    assert "ok    create pods/exec: no" in said
    assert not [name for name in names(ns) if name.endswith("-test")], "a test leaves nothing"


def test_a_pod_is_ready_only_after_a_real_answer(ns: Namespace, engines: str) -> None:
    lease(ns, "leased", 1, "run/generate/1")
    (uid,) = until(
        lambda: [
            uid for uid, pod in pods(ns, "leased").items() if pod["status"]["phase"] == "Running"
        ],
        "the pod",
    )
    pod = until(
        lambda: [each for each in pods(ns, "leased").values() if ready(each)], "its being ready"
    )[0]
    assert pod["metadata"]["uid"] == uid
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    began = seconds(pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])
    became = next(
        seconds(each["lastTransitionTime"])
        for each in pod["status"]["conditions"]
        if each["type"] == "Ready"
    )
    assert became - began >= START_S - 1, "/health was there from the start"


def seconds(time_: str) -> float:
    return time.mktime(time.strptime(time_, "%Y-%m-%dT%H:%M:%SZ"))


def test_an_upgrade_keeps_what_is_leased_and_restarts_only_what_it_changes(
    ns: Namespace, engines: str, tmp_path: Path
) -> None:
    lease(ns, "leased", 1, "run/generate/1")
    until(lambda: any(map(ready, pods(ns, "leased").values())), "the leased pod")
    always, leased = set(pods(ns, "always")), set(pods(ns, "leased"))

    install(ns, "ens", SERVING, serving(ALWAYS, LEASED, {"name": "third"}))
    assert (set(pods(ns, "always")), set(pods(ns, "leased"))) == (always, leased)
    assert (replicas(ns, "leased"), replicas(ns, "third")) == (1, 0)
    assert holders(ns, "ens-leased") == ["run/generate/1"]

    newer = tmp_path / "moaa-serving"
    shutil.copytree(SERVING, newer)
    chart = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(chart.replace("ersion: 0.1.0", "ersion: 0.2.0"))
    install(ns, "ens", newer, serving(ALWAYS, LEASED))
    assert (set(pods(ns, "always")), set(pods(ns, "leased"))) == (always, leased)
    assert not tried("kubectl", "-n", ns.name, "get", "deployment", "ens-third").stdout

    install(ns, "ens", SERVING, serving(ALWAYS | {"maxModelLen": 512}, LEASED))
    until(
        lambda: (
            (found := pods(ns, "always"))
            and not always & set(found)
            and all(map(ready, found.values()))
        ),
        "the new one",
    )
    assert set(pods(ns, "leased")) == leased


def test_leases_own_the_replicas_until_the_values_ask_for_others(
    ns: Namespace, engines: str
) -> None:
    lease(ns, "always", 2, "run/label/1")
    lease(ns, "always", 1)
    install(ns, "ens", SERVING, serving(ALWAYS, LEASED))
    assert replicas(ns, "always") == 1
    helm_4 = run("helm", "version", "--short").startswith(
        "v4"
    )  # applies on the server, and says whose the number is
    install(
        ns,
        "ens",
        SERVING,
        serving(ALWAYS | {"replicas": 2}, LEASED),
        *(("--force-conflicts",) if helm_4 else ()),
    )
    assert replicas(ns, "always") == 2
    install(ns, "ens", SERVING, serving(ALWAYS, LEASED))
    assert replicas(ns, "always") == 1


def test_requests_in_flight_end_before_their_pod_does(ns: Namespace, engines: str) -> None:
    install(ns, "ens", SERVING, serving(ALWAYS, LEASED))
    (pod,) = until(lambda: [each for each in pods(ns, "always").values() if ready(each)], "the pod")
    key = base64.b64decode(ns.get("secret", "moaa-engines")["data"]["VLLM_API_KEY"]).decode()
    script = (
        "import json,urllib.request as u;q={'model':'Always-1B','messages':[],'sleep_s':8};"
        f"r=u.Request('http://{pod['status']['podIP']}:8000/v1/chat/completions',json.dumps(q).encode(),"
        f"{{'Authorization':'Bearer {key}'}});"
        "print(u.urlopen(r).status)"
    )
    client(ns, "patient", {"moaa.dev/client": "true"})
    said: list[str] = []
    asking = threading.Thread(
        target=lambda: said.append(ns.kubectl("exec", "patient", "--", "python3", "-c", script))
    )
    asking.start()
    metrics = "import urllib.request as u;print(u.urlopen('http://localhost:8000/metrics').read().decode())"
    running = re.compile(r"^vllm:num_requests_running\S* 1(\.0)?$", re.MULTILINE)
    look = ("exec", pod["metadata"]["name"], "--", "python3", "-c", metrics)
    until(lambda: running.search(ns.kubectl(*look)), "the request in the engine")
    ns.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    asking.join(60)
    assert said == ["200\n"]


def test_uninstalling_leaves_nothing(
    ns: Namespace, before: set[str], platform: str, engines: str
) -> None:
    lease(ns, "leased", 1, "run/generate/1")
    for release in ("ens", "platform"):
        ns.helm("uninstall", release, "--wait", "--timeout", "120s")
    ns.kubectl("delete", "configmap", "fake", "--ignore-not-found")
    ns.kubectl("delete", "leases", "-l", "moaa.dev/holds")
    ns.kubectl("delete", "pod", "patient", "--ignore-not-found")
    until(lambda: names(ns) == before, "an empty namespace", 60)
