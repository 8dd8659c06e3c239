"""A task's pod follows from the recipe: whose GPUs, how many, which image; and what no pod can be
is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moaa.errors import RecipeError
from moaa.pipelines.tasks import TaskPod, place
from moaa.placement import images
from moaa.placement.compiled import differences, fields
from moaa.recipe.load import load_file
from moaa.stages.table import REPORT, STAGES
from tests.support.paths import DEMO, PAPER

STAGE = {stage.name: stage for stage in (*STAGES, REPORT)}


def at(stage: str, *sets: str, recipe: Path = PAPER) -> TaskPod:
    return place(load_file(recipe, sets).recipe, STAGE[stage])


@pytest.mark.parametrize(
    ("stage", "sets", "gpus"),
    [
        ("generate", [], 8),  # 8 + 4 + 2 + 4 + 4 do not fit: a whole node, in turns
        ("sample", [], 1),
        ("sample", ["models.llama-3-1-8b.tensor_parallel=2"], 2),
        ("sample", ["models.llama-3-1-8b.replicas=3"], 3),
        ("label", ["pools.a100.gpus=16"], 10),  # 2 + 4 + 4 fit side by side
        ("evaluate", ["pools.a100.gpus=16"], 13),  # the judges, and base, SFT and DPO model
        ("sft", ["runtime.launcher.ranks=4"], 4),
        ("sft", ["runtime.launcher.device=cpu"], 0),
        ("sft", ["runtime.launcher.pool=null"], 0),
        ("prompts", [], 0),
    ],
)
def test_gpus(stage: str, sets: list[str], gpus: int) -> None:
    assert at(stage, *sets).gpus == gpus


def test_a_pods_share_grows_with_its_gpus() -> None:
    sets = [
        "pools.a100.cpus=6.5",
        "pools.a100.memory_gib=100",
        "models.llama-3-1-8b.tensor_parallel=2",
    ]
    sample = at("sample", *sets)
    assert (sample.cpu, sample.memory) == (("13", "13"), ("200Gi", "200Gi"))
    cpus_only = at("sample", *sets, "pools.a100.gpus=0")
    assert (cpus_only.gpus, cpus_only.cpu, cpus_only.memory) == (
        0,
        ("6.5", "6.5"),
        ("100Gi", "100Gi"),
    )
    assert cpus_only.node_selector == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}


def test_models_without_a_pool_are_served_on_any_nodes_cpus() -> None:
    sample = at("sample", recipe=DEMO)
    assert (sample.image, sample.gpus, sample.pool, sample.node_selector) == (
        images.SERVE,
        0,
        None,
        {},
    )


def test_who_only_asks_endpoints_needs_no_engine_beside_it() -> None:
    judges = [
        f"models.{name}.endpoint.url=http://x/v1"
        for name in ("qwen2-72b", "gemma-2-27b", "llama-3-1-70b")
    ]
    assert at("label", *judges).image == images.CORE
    assert at("label", *judges[:2]).image == images.SERVE
    target = "models.llama-3-1-8b.endpoint.url=http://x/v1"
    assert at("sample", target).gpus == 1  # the trained model has no endpoint
    assert at("evaluate", *judges, target).gpus == 2


KUBERNETES = "runtime.engines.kind=kubernetes"


@pytest.mark.parametrize("stage", ["generate", "label"])
@pytest.mark.parametrize("kind", ["kubernetes", "endpoint"])
def test_engines_elsewhere_leave_the_pod_light(stage: str, kind: str) -> None:
    asked = at(stage, f"runtime.engines.kind={kind}")
    assert (asked.image, asked.gpus, asked.shm_gib) == (images.CORE, 0, 0)
    assert at("sft", f"runtime.engines.kind={kind}").gpus == 8  # the training still is a process


def test_what_the_run_has_trained_is_served_by_who_asks_it() -> None:
    assert (at("sample", KUBERNETES).image, at("sample", KUBERNETES).gpus) == (images.SERVE, 1)
    evaluate = at("evaluate", KUBERNETES, "pools.a100.gpus=16")
    assert (evaluate.image, evaluate.gpus) == (
        images.SERVE,
        3,
    )  # base, SFT and DPO model; the judges are the cluster's
    based = at("evaluate", KUBERNETES, "models.llama-3-1-8b.endpoint.url=http://x/v1")
    assert based.gpus == 2
    two_pools = at("sample", KUBERNETES, "pools.b.gpus=4", "models.gemma-2-27b.pool=b")
    assert two_pools.pool == "a100"


@pytest.mark.parametrize("kind", ["trainer", "job"])
def test_trainings_of_the_cluster_leave_the_pod_light(kind: str) -> None:
    tuned = at(
        "dpo", f"runtime.launcher.kind={kind}", "runtime.launcher.nodes=4", "dpo.global_batch=128"
    )
    assert (tuned.image, tuned.gpus) == (images.CORE, 0)


def test_benchmarks_that_need_lm_eval_run_on_the_image_that_has_it() -> None:
    """The core image has not: they failed in each run whose models are all behind endpoints."""
    endpoints, harness = "runtime.engines.kind=endpoint", "evaluate.benchmarks={gsm8k: {}}"
    assert at("evaluate", endpoints, "evaluate.benchmarks={}").image == images.CORE
    assert at("evaluate", endpoints, "evaluate.benchmarks={humaneval: {}}").image == images.CORE
    found = at("evaluate", endpoints, harness)
    assert (found.image, found.gpus, found.memory) == (images.SERVE, 0, ("1Gi", "8Gi"))
    # A pipeline that was compiled without it has another pod.
    before, after = (
        load_file(PAPER, [endpoints, sets]).recipe for sets in ("evaluate.benchmarks={}", harness)
    )
    (differs,) = differences(after, STAGES, json.dumps(fields(before, STAGES)))
    assert differs.startswith("stages.evaluate.image: the pipeline was compiled with none")


def test_who_asks_the_base_model_alone_gets_the_key_of_the_engines() -> None:
    asking = at(
        "evaluate",
        "runtime.engines.kind=kubernetes",
        "evaluate.benchmarks={head_to_head: null, gsm8k: {}}",
        "evaluate.contestants=[base]",
    )
    assert "VLLM_API_KEY" in [key for each in asking.secrets for key in each.variables]


def test_preflight_starts_without_the_secret_whose_absence_it_reports() -> None:
    assert [secret.optional for secret in at("preflight").secrets if secret.name == "moaa-env"] == [
        True
    ]
    assert [secret.optional for secret in at("generate").secrets if secret.name == "moaa-env"] == [
        False
    ]


def test_images_of_the_recipe() -> None:
    sets = ["runtime.cluster.images={serve: registry.example/moaa/serve:1}"]
    assert at("sample", *sets).image == "registry.example/moaa/serve:1"
    assert at("sft", *sets).image == images.TRAIN


def test_the_stores_keys_come_under_the_names_the_recipe_gives() -> None:
    secrets = at(
        "prompts",
        "store.access_key_env=MY_ID",
        "store.secret_key_env=MY_KEY",
        "runtime.secret_envs=[]",
    ).secrets
    assert [(secret.variables, secret.optional) for secret in secrets] == [
        (
            {
                "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
            },
            False,
        ),
        ({"AWS_ACCESS_KEY_ID": "MY_ID", "AWS_SECRET_ACCESS_KEY": "MY_KEY"}, False),
        (
            {
                "AWS_ENDPOINT_URL_S3": "AWS_ENDPOINT_URL_S3",
                "AWS_REGION": "AWS_REGION",
                "AWS_SESSION_TOKEN": "AWS_SESSION_TOKEN",
            },
            True,
        ),
    ]


@pytest.mark.parametrize(
    ("stage", "sets", "words"),
    [
        ("generate", ["pools.b.gpus=4", "models.gemma-2-27b.pool=b"], "name the pools a100, b"),
        (
            "generate",
            ["pools.a100.gpus=4"],
            "tensor_parallel is 8, but a node of pool 'a100' has 4 GPUs",
        ),
        ("sft", ["pools.a100.gpus=4"], "ranks is 8, but a node of pool 'a100' has 4 GPUs"),
    ],
)
def test_pods_that_no_node_holds_are_refused(stage: str, sets: list[str], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        at(stage, *sets)


def test_engines_of_the_cluster_may_be_in_several_pools() -> None:
    asked = at(
        "generate", "pools.b.gpus=4", "models.gemma-2-27b.pool=b", "runtime.engines.kind=kubernetes"
    )
    assert (asked.image, asked.gpus, asked.pool) == (images.CORE, 0, None)
