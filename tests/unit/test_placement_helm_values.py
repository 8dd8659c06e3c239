"""Values of the charts for a recipe, and the comparison of a cluster with it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moaa.commands import recipes
from moaa.errors import EngineError, RecipeError
from moaa.gateway.config import parse_config
from moaa.kubernetes import names
from moaa.placement import helm_values
from moaa.recipe.load import load_file, load_text
from moaa.recipe.schema import Recipe
from tests.support.paths import DEMO, PAPER


def recipe(*sets: str, file: Path = PAPER) -> Recipe:
    return load_file(file, sets).recipe


def deployed(of: Recipe, **changed: dict[str, Any]) -> list[dict[str, Any]]:
    """The Deployments that serve a recipe, as Kubernetes lists them; `changed`: by name on the
    cluster, parts of the spec."""
    found = []
    for name, model in helm_values.served(of).items():
        spec = helm_values.spec(name, model) | changed.get(names.dns(name).replace("-", "_"), {})
        labels, annotations = {names.MODEL: names.dns(name)}, {helm_values.SPEC: json.dumps(spec)}
        found.append(
            {
                "metadata": {
                    "name": f"ens-{names.dns(name)}",
                    "labels": labels,
                    "annotations": annotations,
                }
            }
        )
    return found


def test_all_models_that_are_asked_stand_in_the_values_with_their_pools() -> None:
    values = helm_values.serving(recipe())
    assert [model["name"] for model in values["models"]] == [
        "wizardlm-2-8x22b",
        "qwen2-72b",
        "gemma-2-27b",
        "llama-3-1-70b",
        "qwen1-5-110b",
        "llama-3-1-8b",
    ]
    assert values["models"][1] == {
        "name": "qwen2-72b",
        "source": "Qwen/Qwen2-72B-Instruct",
        "pool": "a100",
        "tensorParallelSize": 4,
        "maxModelLen": 16384,
        "sizeGib": 135,
    }
    assert values["pools"] == {
        "a100": {
            "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "device": "cuda",
            "accelerator": "nvidia.com/gpu",
            "cpus": 8,
            "memoryGib": 64,
            "shmGib": 16,
        }
    }


def test_a_reward_model_is_served_as_one_and_a_cluster_that_does_not_differs() -> None:
    sets = ["models.rm={source: org/rm-8B, task: reward}", "label.labeller=reward"]
    chosen = recipe(*sets, "label.model=rm")
    (values,) = [each for each in helm_values.serving(chosen)["models"] if each["name"] == "rm"]
    assert values["task"] == "reward"
    assert helm_values.differences(chosen, deployed(chosen)) == []
    chat = {"task": "embed"}
    (line,) = helm_values.differences(chosen, deployed(chosen, rm=chat))
    assert 'task is "embed", the recipe says "reward"' in line
    (line,) = helm_values.differences(recipe(), deployed(recipe(), gemma_2_27b=chat))
    assert 'task is "embed", the recipe says not given' in line


def test_a_model_of_stages_that_speculates_on_the_cluster_differs() -> None:
    given = {"engine_args": ["--speculative-config={}"]}
    (line,) = helm_values.differences(recipe(), deployed(recipe(), gemma_2_27b=given))
    assert "the same seed gives another text each time" in line
    assert "serve stages by another Deployment" in line


def test_a_model_without_a_pool_runs_on_cores() -> None:
    values = helm_values.serving(recipe("runtime.engines.kv_cache_gib=1.5", file=DEMO))
    assert values["models"][0]["kvCacheGib"] == 1.5
    assert "pool" not in values["models"][0]
    assert values["pools"] == {"default": {"device": "cpu", "cpus": 2, "memoryGib": 8, "shmGib": 2}}


def test_models_that_others_serve_and_that_nobody_asks_are_left_out() -> None:
    other = recipe("models.qwen2-72b.endpoint.url=http://x/v1", "models.spare.source=a/b")
    assert not {"qwen2-72b", "spare"} & helm_values.served(other).keys()


def test_what_the_recipe_names_for_the_cluster_reaches_the_charts() -> None:
    named = recipe(
        "runtime.cluster.s3_secret=keys",
        "runtime.cluster.images.serve=r/serve:2",
        "runtime.cluster.images.train=r/train:2",
        "runtime.cluster.image_pull_secrets=[pull]",
        "runtime.cluster.service_account=runner",
        "runtime.launcher.kind=trainer",
        "models.qwen2-72b.replicas=3",
        "models.qwen2-72b.engine_args=[--x]",
        "models.qwen2-72b.revision=c1",
    )
    serving, platform = helm_values.serving(named), helm_values.platform(named)
    assert serving["images"] == {"serve": "r/serve:2"}
    assert serving["s3"] == platform["s3"] == {"secretName": "keys"}
    assert serving["imagePullSecrets"] == platform["imagePullSecrets"] == ["pull"]
    qwen = serving["models"][1]
    assert (qwen["leasedReplicas"], qwen["extraArgs"], qwen["revision"]) == (3, ["--x"], "c1")
    assert platform["images"] == {"train": "r/train:2"}
    assert platform["serviceAccounts"] == {"pipeline": "runner"}
    assert platform["pools"].keys() == {"a100"}
    assert platform["trainer"] == {"enabled": True}
    assert helm_values.platform(recipe())["trainer"] == {"enabled": False}


def test_a_name_that_kubernetes_refuses_is_changed_there_and_kept_in_requests() -> None:
    text = (
        DEMO.read_text()
        .replace("smollm2:", "SmolLM2_135M:")
        .replace("model: smollm2", "model: SmolLM2_135M")
    )
    text = text.replace("target: smollm2", "target: SmolLM2_135M")
    (model,) = helm_values.serving(load_text(text).recipe)["models"]
    assert (model["name"], model["servedName"]) == ("smollm2-135m", "SmolLM2_135M")


@pytest.mark.parametrize("source", ["./model", "/models/x", "~/x", "x.gguf"])
def test_a_model_on_this_machine_cannot_be_served_there(source: str) -> None:
    with pytest.raises(
        RecipeError, match=r"models\.llama-3-1-8b\.source is .* which a cluster cannot read"
    ):
        helm_values.serving(recipe(f"models.llama-3-1-8b.source={source}"))


def test_names_that_kubernetes_cannot_tell_apart_or_take_are_refused() -> None:
    with pytest.raises(EngineError, match="would both be 'llama-3-1-8b'"):
        helm_values.serving(
            recipe(
                "models.llama-3_1-8b.source=a/b", "generate.mixture.aggregator.model=llama-3_1-8b"
            )
        )
    with pytest.raises(RecipeError, match="pool 'A100' cannot be part of a Kubernetes name"):
        helm_values.serving(recipe("pools.A100.gpus=8", "models.llama-3-1-8b.pool=A100"))


def test_a_cluster_that_serves_the_recipe_differs_in_nothing() -> None:
    assert helm_values.differences(recipe(), deployed(recipe())) == []


@dataclass
class Difference:
    of: dict[str, Any]
    says: str


@pytest.mark.parametrize(
    "case",
    [
        Difference({"source": "a/b"}, 'source is "a/b", the recipe says "Qwen/Qwen2-72B-Instruct"'),
        Difference({"tensor_parallel": 8}, "tensor_parallel is 8, the recipe says 4"),
        Difference({"served_name": "qwen"}, 'served_name is "qwen", the recipe says "qwen2-72b"'),
        Difference({"engine_args": ["--x"]}, 'engine_args is ["--x"], the recipe says not given'),
        Difference(
            {"max_model_len": 0, "dtype": "float16"},
            'dtype is "float16", the recipe says "bfloat16"; max_model_len is not given, the '
            "recipe says 16384",
        ),
    ],
    ids=lambda case: next(iter(case.of)),
)
def test_each_difference_is_named(case: Difference) -> None:
    (line,) = helm_values.differences(recipe(), deployed(recipe(), qwen2_72b=case.of))
    assert line == f"model 'qwen2-72b' (Deployment ens-qwen2-72b): {case.says}"


def test_missing_double_and_foreign_deployments_are_named() -> None:
    first, second, third, *others = deployed(recipe())
    second["metadata"]["annotations"] = None
    third["metadata"]["annotations"][helm_values.SPEC] = "[]"
    twin = {"metadata": {**others[0]["metadata"], "name": "other"}}
    lines = helm_values.differences(recipe(), [second, third, *others, twin])
    assert first["metadata"]["labels"] == {names.MODEL: "wizardlm-2-8x22b"}
    unsaid = "its annotation moaa.dev/spec does not say what it serves; moaa-serving writes it"
    assert lines == [
        "model 'wizardlm-2-8x22b': no Deployment is labelled moaa.dev/model=wizardlm-2-8x22b",
        f"model 'qwen2-72b' (Deployment ens-qwen2-72b): {unsaid}",
        f"model 'gemma-2-27b' (Deployment ens-gemma-2-27b): {unsaid}",
        "model 'llama-3-1-70b': 2 Deployments are labelled moaa.dev/model=llama-3-1-70b "
        "(ens-llama-3-1-70b, other); there must be exactly one",
    ]


def test_the_recipes_mixture_is_one_that_the_gateway_serves() -> None:
    of = recipe()
    values = helm_values.serving(of)
    known = values["gateway"]["config"]["models"]
    assert known["gemma-2-27b"]["system_role"] is False
    models = {name: {"service": name, **known.get(name, {})} for name in helm_values.served(of)}
    given = {"anonymous": {}, "models": models, "mixtures": values["mixtures"]}
    made = parse_config(json.dumps(given), "values").mixtures[of.name]
    assert made.proposers == of.generate.mixture.proposers
    assert made.aggregator == of.generate.mixture.aggregator


def test_a_model_behind_an_endpoint_is_one_of_the_gateways_too() -> None:
    endpoint = {"url": "https://big.example/v1", "model": "Q", "key_env": "BIG_KEY"}
    values = helm_values.serving(recipe(f"models.qwen2-72b.endpoint={json.dumps(endpoint)}"))
    assert values["gateway"]["config"]["models"]["qwen2-72b"] == {
        "price": {"prompt": 0.9, "completion": 0.9},
        "endpoints": ["https://big.example/v1"],
        "served_name": "Q",
        "key_env": "BIG_KEY",
    }
    assert values["gateway"]["envSecrets"] == ["moaa-env"]


def test_a_mixture_that_is_too_large_to_serve_is_left_out() -> None:
    assert "mixtures" not in helm_values.serving(
        recipe("generate.mixture.proposers.0.sampling.n=9")
    )


def test_a_mixture_whose_models_take_turns_is_left_out_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger("moaa").propagate = True
    turns = "runtime.engines.schedule=by-turns"
    assert "mixtures" not in helm_values.serving(recipe(turns))
    assert "take turns" in caplog.text
    assert "mixtures" in helm_values.serving(recipe(turns, file=DEMO)), "one model has no turns"


def test_the_slots_that_a_promotion_fills_have_the_targets_size() -> None:
    promoting = recipe("publish={name: chat}", "promote={slots: aligned}", "gate={}")
    (slots,) = helm_values.serving(promoting)["promoted"]
    assert slots["pointers"] == f"{promoting.store.root}/pointers/aligned"
    (target,) = (
        each for each in helm_values.serving(promoting)["models"] if each["name"] == "llama-3-1-8b"
    )
    assert slots == {
        "name": "aligned",
        "pointers": slots["pointers"],
        **{key: target[key] for key in ("pool", "maxModelLen", "sizeGib")},
    }
    for without in ("promote=null", "promote={}"):
        made = recipe("publish={name: chat}", "gate={}", without)
        assert "promoted" not in helm_values.serving(made)


@pytest.mark.parametrize(
    ("file", "chart", "warned"),
    [
        (DEMO, "serving", True),
        (DEMO, "platform", False),
        (DEMO.with_name("demo-cluster.yaml"), "serving", False),
    ],
)
def test_values_of_engines_that_no_run_leases_come_with_a_warning(
    file: Path, chart: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    recipes.helm_values(file, [], chart)
    assert ("--set runtime.engines.kind=kubernetes" in caplog.text) is warned
