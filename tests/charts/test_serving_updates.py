"""How many replicas there are, what they say of themselves, and when they are replaced."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.charts.render import SERVING, needs_helm
from tests.charts.serving import HUB, deployment, pod

pytestmark = needs_helm


@pytest.mark.parametrize(("size", "seconds"), [(1, 330), (135, 4350)])
def test_the_time_for_a_start_follows_from_the_models_size(size: float, seconds: int) -> None:
    made = deployment(HUB | {"sizeGib": size})
    probe = made["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == seconds
    assert made["spec"]["progressDeadlineSeconds"] > seconds


def test_a_pod_is_ready_after_a_real_answer_and_drained_before_it_goes() -> None:
    made = pod(HUB | {"servedName": "Qwen2-72B"}, drain={"seconds": 90})
    container = made["containers"][0]
    python, option, script, *arguments = container["startupProbe"]["exec"]["command"]
    assert (python, option, arguments) == ("python3", "-c", ["8000", "Qwen2-72B", "25", "chat"])
    assert script.strip() == (SERVING / "files" / "ready.py").read_text().strip()
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert container["lifecycle"]["preStop"]["exec"]["command"][3:] == ["8000", "90"]
    assert made["terminationGracePeriodSeconds"] > 90


def test_liveness_is_whether_the_engine_gets_on() -> None:
    made = pod(HUB | {"servedName": "Qwen2-72B"}, liveness={"stillSeconds": 100})
    probe = made["containers"][0]["livenessProbe"]
    script, *arguments = probe["exec"]["command"][2:]
    assert script.strip() == (SERVING / "files" / "alive.py").read_text().strip()
    assert arguments == ["8000", "Qwen2-72B", "100", "/tmp/moaa-alive.json", "chat"]
    assert probe["timeoutSeconds"] > 8 + 8 + 3 + 3, "its own time-outs end before the kubelet's"
    assert probe["terminationGracePeriodSeconds"] < made["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(
    ("given", "now", "idle", "leased"),
    [
        ({}, 0, "0", "1"),
        ({"leasedReplicas": 3}, 0, "0", "3"),
        ({"replicas": 2}, 2, "2", "2"),
        # An autoscaler's replicas are its own: neither a lease nor the reaper changes them.
        ({"replicas": 2, "autoscaling": {"kind": "hpa", "maxReplicas": 6}}, 2, "6", "2"),
    ],
)
def test_replicas_idle_and_leased(given: dict[str, Any], now: int, idle: str, leased: str) -> None:
    made = deployment(HUB | given)
    annotations = made["metadata"]["annotations"]
    assert made["spec"]["replicas"] == now
    assert (annotations["moaa.dev/idle-replicas"], annotations["moaa.dev/replicas"]) == (
        idle,
        leased,
    )


@pytest.mark.parametrize(("surge", "unavailable"), [(0, 1), (1, 0)])
def test_an_update_takes_a_replica_down_first_or_a_spare_gpu(surge: int, unavailable: int) -> None:
    rolling = deployment(HUB | {"surge": surge})["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": surge, "maxUnavailable": unavailable}


def test_the_annotation_says_what_is_served() -> None:
    made = deployment(
        HUB | {"tensorParallelSize": 4, "extraArgs": ["--a='b'"], "maxModelLen": 1000000}
    )
    assert json.loads(made["metadata"]["annotations"]["moaa.dev/spec"]) == {
        "source": "Qwen/Qwen2-72B-Instruct",
        "revision": "",
        "served_name": "qwen",
        "dtype": "bfloat16",
        "max_model_len": 1000000,
        "quantization": "",
        "tensor_parallel": 4,
        "engine_args": ["--a='b'"],
    }


def test_a_new_version_of_the_chart_alone_restarts_nothing() -> None:
    """Nothing in a pod's template may come from the chart's or the release's own version."""
    template = deployment(HUB)["spec"]["template"]
    assert "0.1.0" not in json.dumps(template).replace("moaa/serve:0.1.0", "")
    assert not template["metadata"].get("annotations")
