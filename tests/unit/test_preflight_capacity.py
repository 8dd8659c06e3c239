"""Whether nodes and quotas hold the largest step: arithmetic on Kubernetes' numbers."""

from __future__ import annotations

import itertools
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from moaa.errors import ClusterError
from moaa.preflight import capacity
from moaa.recipe import Recipe
from moaa.recipe.load import load_file
from moaa.stages.table import STAGES
from tests.support.paths import PAPER

CLUSTER = ["runtime.engines.kind=kubernetes", "runtime.launcher.kind=trainer"]
LABELS = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
GPU = "nvidia.com/gpu"


def paper(*sets: str) -> Recipe:
    return load_file(PAPER, [*CLUSTER, *sets]).recipe


def node(
    gpus: int = 8,
    cpus: str = "96",
    memory: str = "1100Gi",
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    allocatable = {"cpu": cpus, "memory": memory, GPU: str(gpus)}
    spec.setdefault("taints", [{"key": GPU, "effect": "NoSchedule"}])
    return {
        "metadata": {"labels": LABELS if labels is None else labels},
        "spec": spec,
        "status": {"allocatable": allocatable},
    }


def gpus(recipe: Recipe) -> dict[str, list[float]]:
    return {
        step.name: sorted((pod.get(GPU, 0) for pod in step.pods), reverse=True)
        for step in capacity.steps(recipe, STAGES)
    }


def test_what_each_stage_holds_at_once() -> None:
    assert gpus(paper()) == {
        "generate": [8, 4, 4, 4, 2],
        "sample": [1],
        "label": [4, 4, 2],
        "evaluate": [4, 4, 3, 2],  # the judges, and a pod that serves base, SFT and DPO model
        "sft": [8],
        "dpo": [8],
    }


@pytest.mark.parametrize(
    ("sets", "stage", "expected"),
    [
        (["runtime.engines.schedule=by-turns"], "generate", [8]),
        (["runtime.launcher.nodes=4"], "sft", [8, 8, 8, 8]),
        (["models.qwen2-72b.replicas=3"], "label", [4, 4, 4, 4, 2]),
        (["models.qwen2-72b.endpoint.url=http://x/v1"], "label", [4, 2]),
        (["runtime.engines.kind=process"], "generate", [8]),
        (["runtime.launcher.device=cpu"], "sft", [0]),
    ],
)
def test_what_changes_it(sets: list[str], stage: str, expected: list[float]) -> None:
    assert gpus(paper(*sets))[stage] == expected


def findings(recipe: Recipe, *nodes: dict[str, Any]) -> list[Any]:
    return list(capacity.pool_findings(recipe, capacity.steps(recipe, STAGES), nodes))


def test_three_nodes_hold_the_papers_ensemble() -> None:
    (found,) = findings(paper(), node(), node(), node())
    assert found.ok
    assert "3 of 3 nodes can be used, with 24 nvidia.com/gpu; the largest step fits" in found.detail


def test_two_nodes_do_not_and_by_turns_they_do() -> None:
    (found,) = findings(paper(), node(), node())
    assert not found.ok
    needs = (
        "generate needs 22 nvidia.com/gpu in pods of 8, 4, 4, 4, 2; "
        "the largest asks for 8 nvidia.com/gpu, 64 cores, 512 GiB"
    )
    assert needs in found.detail
    assert "by-turns" in found.fix
    (found,) = findings(paper("runtime.engines.schedule=by-turns"), node(), node())
    assert found.ok


@pytest.mark.parametrize(
    "other",
    [
        node(labels={"nvidia.com/gpu.product": "T4"}),
        node(unschedulable=True),
        node(taints=[{"key": "reserved", "effect": "NoSchedule"}]),
        node(
            taints=[
                {"key": GPU, "effect": "NoSchedule"},
                {"key": "maintenance", "effect": "NoExecute"},
            ]
        ),
    ],
    ids=["label", "cordoned", "taint", "one more taint"],
)
def test_nodes_that_the_pools_pods_cannot_use_do_not_count(other: dict[str, Any]) -> None:
    (found,) = findings(paper(), node(), node(), other)
    assert not found.ok
    assert "2 of 3 nodes can be used" in found.detail


def test_a_taint_that_only_warns_is_none() -> None:
    assert findings(
        paper(), node(), node(), node(taints=[{"key": "x", "effect": "PreferNoSchedule"}])
    )[0].ok


def test_no_node_at_all() -> None:
    (found,) = findings(paper(), node(labels={}))
    assert not found.ok
    assert "0 of 1 nodes" in found.detail
    assert "node_selector" in found.fix


@pytest.mark.parametrize(
    ("small", "word"),
    [
        (node(cpus="63"), "64 cores"),
        (node(memory="511Gi"), "512 GiB"),
        (node(gpus=4), "8 nvidia.com/gpu"),
    ],
)
def test_a_node_must_hold_the_whole_pod(small: dict[str, Any], word: str) -> None:
    (found,) = findings(paper("runtime.engines.schedule=by-turns"), *[small] * 20)
    assert not found.ok
    assert word in found.detail


def quota(**hard: str) -> dict[str, Any]:
    named = {key.replace("__", "/").replace("_", "."): value for key, value in hard.items()}
    return {
        "metadata": {"name": "team"},
        "spec": {"hard": named},
        "status": {"hard": {}, "used": {}},
    }


def quotas(
    recipe: Recipe, found: dict[str, Any], *, defaults: bool = False, kubeflow: bool = False
) -> Any:
    (only,) = capacity.quota_findings(
        capacity.steps(recipe, STAGES), [found], defaults, kubeflow=kubeflow
    )
    return only


def test_what_a_quota_leaves() -> None:
    there = quota(requests_nvidia_com__gpu="24")
    there["spec"]["hard"] = {"requests.nvidia.com/gpu": "24", "requests.memory": "1Ti"}
    found = quotas(paper(), there)
    assert not found.ok
    assert "requests.memory: 1,024 GiB left, generate needs" in found.detail
    there["spec"]["hard"] = {"requests.nvidia.com/gpu": "24"}
    assert quotas(paper(), there).ok
    there["status"]["used"] = {"requests.nvidia.com/gpu": "3"}
    found = quotas(paper(), there)
    assert "requests.nvidia.com/gpu: 21 left, generate needs 22" in found.detail


def test_a_quota_without_defaults_refuses_kubeflows_own_containers() -> None:
    there = quota(limits_cpu="9999")
    assert not quotas(paper(), there, kubeflow=True).ok
    assert quotas(paper(), there, kubeflow=True, defaults=True).ok
    assert quotas(paper(), there).ok  # a runner's containers all name limits
    assert quotas(paper(), quota(pods="100"), kubeflow=True).ok


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("500m", 0.5),
        ("2Gi", 2**31),
        ("1.5Ki", 1536),
        ("128974848", 128974848),
        ("1e3", 1000),
        ("4k", 4000),
        ("1Pi", 2**50),
        ("2P", 2 * 10**15),
        ("500u", Decimal("0.0005")),
        ("100n", Decimal("1e-7")),
        ("0", 0),
    ],
)
def test_quantities(text: str, value: float) -> None:
    assert capacity.quantity(text, "here") == value


@pytest.mark.parametrize("text", ["?", "", "12 GiB", "1Qi"])
def test_what_is_not_a_quantity_is_named(text: str) -> None:
    with pytest.raises(ClusterError, match=rf"^here: '{re.escape(text)}' is not a Kubernetes"):
        capacity.quantity(text, "here")


def test_an_unreadable_quantity_fails_the_check_and_names_its_place() -> None:
    recipe, bad = paper(), node(memory="much")
    bad["metadata"]["name"] = "n1"
    (found,) = findings(recipe, node(), node(), node(), bad)
    assert not found.ok
    assert "node 'n1', allocatable memory: 'much' is not a Kubernetes quantity" in found.detail
    there = quota(requests_memory="1Pi")
    there["status"]["used"] = {"requests.memory": "some"}
    found = quotas(recipe, there)
    assert not found.ok
    assert found.detail == (
        "ResourceQuota 'team', requests.memory: 'some' is not a Kubernetes quantity"
    )


def test_a_quota_of_a_pebibyte_leaves_room() -> None:
    assert quotas(paper(), quota(requests_memory="1Pi")).ok


def placeable(pods: list[capacity.Size], nodes: list[capacity.Size]) -> bool:
    """Try every assignment of pods to nodes."""
    return any(
        all(
            sum(pod.get(resource, 0) for pod, at in zip(pods, places, strict=True) if at == number)
            <= node.get(resource, 0)
            for number, node in enumerate(nodes)
            for resource in ("cpu", GPU)
        )
        for places in itertools.product(range(len(nodes)), repeat=len(pods))
    )


def sizes(gpus: list[int], most: int) -> some.SearchStrategy[list[capacity.Size]]:
    one = some.builds(
        lambda cpu, gpu: {"cpu": cpu, GPU: gpu}, some.integers(1, 8), some.sampled_from(gpus)
    )
    return some.lists(one, min_size=1, max_size=most)


@given(sizes([0, 1, 2, 3, 4], 5), sizes([0, 2, 4, 8], 3))
def test_what_fits_can_be_placed(pods: list[capacity.Size], nodes: list[capacity.Size]) -> None:
    if capacity.fits(pods, nodes):
        assert placeable(pods, nodes)


@given(
    some.lists(some.sampled_from([1, 2, 4, 8]), min_size=1, max_size=5),
    some.lists(some.sampled_from([0, 1, 2, 4, 8]), min_size=1, max_size=3),
)
def test_pods_of_1_2_4_8_gpus_fit_exactly_if_they_can_be_placed(
    pods: list[int], nodes: list[int]
) -> None:
    """Largest first is exact if each size divides the next one: no healthy cluster is refused."""
    wanted = [{"cpu": float(gpus), GPU: float(gpus)} for gpus in pods]
    there = [{"cpu": float(gpus), GPU: float(gpus)} for gpus in nodes]
    assert capacity.fits(wanted, there) == placeable(wanted, there)


def test_the_gpus_of_each_stage_have_their_price() -> None:
    held = capacity.gpus_held(paper("pools.a100.gpu_hour_usd=3"), STAGES)
    assert held["generate"] == {"gpus": 22, "hour_usd": 66}
    assert held["sft"] == {"gpus": 8, "hour_usd": 24}
    assert "prompts" not in held
    stated = paper("pools.a100.gpu_hour_usd=null", "plan.gpu_hour_usd=5")
    assert capacity.gpus_held(stated, STAGES)["sample"] == {"gpus": 1, "hour_usd": 5}
    assert capacity.gpus_held(paper("pools.a100.gpus=0"), STAGES) == {}
