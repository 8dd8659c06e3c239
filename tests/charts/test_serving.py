"""moaa-serving: a Deployment and a Service for each model, started as on one machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from moaa.engines.devices import dtype_on
from moaa.engines.server import Spec, command
from moaa.recipe.engine_args import speculates
from moaa.recipe.schema import Engines, Model
from tests.charts.render import SERVING, needs_helm, objects, of
from tests.charts.serving import CPU, HUB, S3, deployment, env, pod, vllm

pytestmark = needs_helm


def test_a_deployment_and_a_service_for_each_model_found_by_its_label() -> None:
    found = objects(SERVING, {"models": [HUB, S3]})
    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        models = {
            m["metadata"]["labels"]["moaa.dev/model"]: m["metadata"]["name"]
            for m in found
            if m["kind"] == kind
        }
        assert models == {"qwen": "ex-qwen", "own": "ex-own"}
    own = of("Deployment", found, "ex-own")
    labels = own["spec"]["template"]["metadata"]["labels"]
    assert own["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert (
        of("Service", found, "ex-own")["spec"]["selector"] == own["spec"]["selector"]["matchLabels"]
    )
    assert labels["moaa.dev/model"] == "own"


def test_no_models_no_workloads() -> None:
    assert {each["kind"] for each in objects(SERVING)} == {
        "ServiceAccount",
        "Secret",
        "NetworkPolicy",
        "Pod",
    }


@pytest.mark.parametrize("given", [["--tokenizer=org/other"], ["--tokenizer", "org/other"]])
def test_a_tokenizer_of_its_own_gets_no_revision_of_the_model(given: list[str]) -> None:
    """Its repository has other revisions: the engine looked for the model's there."""
    own = vllm(HUB | {"revision": "c1", "extraArgs": given})["args"]
    assert "--revision=c1" in own
    assert not [arg for arg in own if arg.startswith("--tokenizer-revision")]
    assert "--tokenizer-revision=c1" in vllm(HUB | {"revision": "c1"})["args"]


@pytest.mark.parametrize(("size", "share"), [(1, ("8", "64Gi")), (4, ("32", "256Gi"))])
def test_gpus_and_their_share_of_a_node_follow_from_the_tensor_parallel_size(
    size: int, share: tuple[str, str]
) -> None:
    container = vllm(HUB | {"tensorParallelSize": size})
    assert container["resources"]["limits"] == {
        "nvidia.com/gpu": size,
        "cpu": share[0],
        "memory": share[1],
    }
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert f"--tensor-parallel-size={size}" in container["args"]


def test_a_pool_places_its_models_and_sizes_their_shared_memory() -> None:
    tolerations = [{"key": "gpu", "operator": "Exists"}]
    pools = {
        "big": {
            "nodeSelector": {"pool": "big"},
            "tolerations": tolerations,
            "accelerator": "amd.com/gpu",
            "shmGib": 0.5,
        }
    }
    made = pod(HUB | {"pool": "big", "resources": {"limits": {"memory": "9Gi"}}}, pools=pools)
    assert (made["nodeSelector"], made["tolerations"]) == ({"pool": "big"}, tolerations)
    limits = made["containers"][0]["resources"]["limits"]
    assert limits == {"amd.com/gpu": 1, "cpu": "8", "memory": "9Gi"}
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}} in made[
        "volumes"
    ]


def test_models_have_the_defaults_but_for_what_they_give() -> None:
    values = {
        "modelDefaults": {"maxModelLen": 4096, "autoscaling": {"maxReplicas": 9}},
        "models": [HUB, S3 | {"maxModelLen": 0}],
    }
    found = objects(SERVING, values)
    with_default, without = (
        of("Deployment", found, name)["spec"]["template"]["spec"]["containers"][0]
        for name in ("ex-qwen", "ex-own")
    )
    assert "--max-model-len=4096" in with_default["args"]
    assert not [each for each in without["args"] if each.startswith("--max-model-len")]


@pytest.mark.parametrize("seqs", [None, 7])
@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_an_engine_is_started_as_on_one_machine(
    kind: Any, seqs: int | None, tmp_path: Path
) -> None:
    """The chart and `moaa.engines.server` start the same program with the same arguments, except
    addresses."""
    given = Model(
        source="a/b",
        revision="c1",
        dtype="float16",
        max_model_len=512,
        quantization="fp8",
        engine_args=("--x=1",),
    )
    theirs, _ = command(
        Spec("served", "a/b", given, Engines(max_num_seqs=seqs), kind, ("0",)), 8000
    )
    container = vllm(
        {
            "name": "m",
            "source": "a/b",
            "servedName": "served",
            "revision": "c1",
            "dtype": "float16",
            "maxModelLen": 512,
            "quantization": "fp8",
            "extraArgs": ["--x=1"],
            **({"maxNumSeqs": seqs} if seqs else {}),
        },
        pools={"default": {"device": kind}},
    )
    ours = started(container, tmp_path)
    assert options(ours) | {"--host": "127.0.0.1"} == options(theirs)
    program = {"cuda": ["serve", "a/b"], "cpu": ["-m", "vllm.entrypoints.openai.api_server"]}[kind]
    assert ours[1 : 1 + len(program)] == theirs[1 : 1 + len(program)] == program


def started(container: dict[str, Any], folder: Path) -> list[str]:
    """Return the program that the shell starts in the end, and its arguments. Its Python is one
    that only prints them."""
    given = [*container["command"], *container["args"]]
    if given[0] != "sh":
        return given
    (folder / "python3").write_text('#!/bin/sh\nprintf "%s\\n" python3 "$@"\n')
    (folder / "python3").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    said = subprocess.run(
        given, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return said[said.index("python3") :]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_engine_on_cores_computes_in_what_they_can(dtype: str, tmp_path: Path) -> None:
    container = vllm(S3 | {"dtype": dtype}, pools=CPU)
    assert options(started(container, tmp_path))["--dtype"] == dtype_on("cpu", dtype)


def options(arguments: list[str]) -> dict[str, str]:
    """Return the arguments `--a b`, `--a=b` and `--a` as a mapping."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    following = [*words[1:], "--"]
    return {
        word: "" if after.startswith("--") else after
        for word, after in zip(words, following, strict=True)
        if word[:2] == "--"
    }


def test_an_engine_on_cores_has_its_share_of_them() -> None:
    container = vllm(S3 | {"kvCacheGib": 1.5}, pools=CPU)
    arguments = {"--enforce-eager", "--no-enable-chunked-prefill"}
    arguments.add("--kv-cache-memory-bytes=1610612736")  # a variable takes whole GiB only
    assert arguments <= set(container["args"])
    found = env(container)
    assert (found["OMP_NUM_THREADS"], found["HOME"]) == ("2", "/tmp")
    assert container["resources"]["limits"] == {"cpu": "1500m", "memory": "5Gi"}


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ("reward", ["--runner=pooling", "--convert=classify"]),
        (
            "embed",
            [
                "--runner=pooling",
                "--convert=embed",
                '--pooler-config={"pooling_type":"LAST","use_activation":false}',
            ],
        ),
    ],
)
def test_a_reward_model_is_served_as_one(task: str, arguments: list[str]) -> None:
    made = deployment(HUB | {"task": task})
    container = made["spec"]["template"]["spec"]["containers"][0]
    assert [each for each in container["args"] if each in arguments] == arguments
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"][-1] == task
    assert json.loads(made["metadata"]["annotations"]["moaa.dev/spec"])["task"] == task


def test_speculation_is_in_the_command_and_in_what_preflight_sees() -> None:
    made = deployment(HUB | {"speculativeTokens": 4, "extraArgs": ["--x"]})
    (container,) = made["spec"]["template"]["spec"]["containers"]
    argument = container["args"][-1]
    name, _, given = argument.partition("=")
    assert name == "--speculative-config"
    assert json.loads(given) == {
        "method": "ngram",
        "num_speculative_tokens": 4,
        "prompt_lookup_max": 4,
        "prompt_lookup_min": 2,
    }
    spec = json.loads(made["metadata"]["annotations"]["moaa.dev/spec"])
    assert spec["engine_args"] == ["--x", argument]
    assert speculates(spec["engine_args"])
