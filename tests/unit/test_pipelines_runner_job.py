"""The Job of a run in one pod: restricted, replaced when lost, given what its stages need and no
more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moaa.errors import RecipeError
from moaa.pipelines import runner_job
from moaa.placement import images
from moaa.recipe.load import load_file
from tests.support.paths import PAPER

CLUSTER = ["runtime.engines.kind=kubernetes", "runtime.launcher.kind=trainer"]


def job(*sets: str, until: str = "evaluate") -> dict[str, Any]:
    return runner_job.job(
        load_file(PAPER, [*CLUSTER, *sets]),
        "paper-llama-20260101-000000-abcd",
        runner_job.of_run(until),
    )


def pod(found: dict[str, Any]) -> dict[str, Any]:
    return found["spec"]["template"]["spec"]


def container(found: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(found)["containers"]
    return only


def test_the_recipe_travels_word_for_word() -> None:
    sets = ["generate.mixture.proposers[0].system='Say 😀, $(HOME), {{workflow.name}}: \"quoted\"'"]
    loaded = load_file(PAPER, [*CLUSTER, *sets])
    made = json.loads(json.dumps(runner_job.job(loaded, "x", runner_job.of_run("evaluate"))))
    assert runner_job.recipe_of(made) == loaded.text
    (volume,) = [each for each in pod(made)["volumes"] if each["name"] == "recipe"]
    (item,) = volume["downwardAPI"]["items"]
    assert item["fieldRef"]["fieldPath"] == "metadata.annotations['moaa.dev/recipe']"
    assert f"/etc/moaa/{item['path']}" in container(made)["command"]


def test_it_is_called_like_the_run() -> None:
    made = job(until="label")
    assert (
        made["metadata"]["name"]
        == made["metadata"]["labels"]["moaa.dev/run"]
        == "paper-llama-20260101-000000-abcd"
    )
    command = container(made)["command"]
    environment = {each["name"]: each.get("value") for each in container(made)["env"]}
    assert environment["MOAA_RUN_ID"] == made["metadata"]["name"]
    assert command[command.index("--until") + 1] == "label"


def test_it_may_ask_the_engines() -> None:
    labels = job()["spec"]["template"]["metadata"]["labels"]
    assert labels["moaa.dev/client"] == "true"
    assert labels["app.kubernetes.io/part-of"] == "moaa"


def test_it_passes_pod_security_restricted() -> None:
    made = job()
    assert pod(made)["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    security = container(made)["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {
        each["mountPath"] for each in container(made)["volumeMounts"] if each["name"] != "recipe"
    }
    assert writable == {"/tmp", "/work", "/dev/shm"}
    assert container(made)["workingDir"] == "/work"


def test_a_lost_pod_is_replaced_and_a_failed_run_is_not() -> None:
    spec = job()["spec"]
    assert spec["backoffLimit"] == 5
    assert spec["podReplacementPolicy"] == "Failed"  # never two at once
    failed, lost = spec["podFailurePolicy"]["rules"]
    assert (failed["action"], failed["onExitCodes"]["values"]) == ("FailJob", [1, 2])
    assert 137 not in failed["onExitCodes"]["values"]
    assert lost["action"] == "Ignore"
    assert pod(job())["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("until", "image", "gpus"),
    [
        ("generate", images.CORE, None),
        ("sft", images.CORE, None),
        ("sample", images.SERVE, "1"),
        ("evaluate", images.SERVE, "3"),
    ],
)
def test_it_holds_what_its_largest_stage_needs(until: str, image: str, gpus: str | None) -> None:
    made = job(until=until)
    assert container(made)["image"] == image
    assert container(made)["resources"]["limits"].get("nvidia.com/gpu") == gpus
    assert pod(made)["nodeSelector"] == (
        {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"} if gpus else {}
    )
    assert pod(made).get("tolerations") == (
        [{"key": "nvidia.com/gpu", "operator": "Exists"}] if gpus else None
    )


def test_secrets_come_by_name_only() -> None:
    made = job(
        "models.qwen2-72b.endpoint={url: https://x/v1, key_env: QWEN_KEY}",
        "store.access_key_env=MY_ID",
    )
    sources = {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for each in container(made)["env"]
        if "valueFrom" in each
    }
    assert sources == {
        "AWS_ACCESS_KEY_ID": {"name": "moaa-s3", "key": "AWS_ACCESS_KEY_ID", "optional": False},
        "AWS_SECRET_ACCESS_KEY": {
            "name": "moaa-s3",
            "key": "AWS_SECRET_ACCESS_KEY",
            "optional": False,
        },
        "MY_ID": {"name": "moaa-s3", "key": "AWS_ACCESS_KEY_ID", "optional": False},
        "AWS_ENDPOINT_URL_S3": {"name": "moaa-s3", "key": "AWS_ENDPOINT_URL_S3", "optional": True},
        "AWS_REGION": {"name": "moaa-s3", "key": "AWS_REGION", "optional": True},
        "AWS_SESSION_TOKEN": {"name": "moaa-s3", "key": "AWS_SESSION_TOKEN", "optional": True},
        "VLLM_API_KEY": {"name": "moaa-engines", "key": "VLLM_API_KEY", "optional": True},
        "HF_TOKEN": {
            "name": "moaa-env",
            "key": "HF_TOKEN",
            "optional": True,
        },  # preflight says what is missing
        "QWEN_KEY": {"name": "moaa-env", "key": "QWEN_KEY", "optional": True},
    }
    names = [each["name"] for each in container(made)["env"]]
    assert len(names) == len(set(names))


def test_accounts_and_pull_secrets_are_the_recipes() -> None:
    made = job(
        "runtime.cluster.service_account=runner", "runtime.cluster.image_pull_secrets=[a, b]"
    )
    assert pod(made)["serviceAccountName"] == "runner"
    assert pod(made)["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


def test_a_pod_that_would_have_to_train_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"sft, dpo: runtime\.launcher\.kind is 'process'.*'trainer'"
    ):
        job("runtime.launcher.kind=process")
    job("runtime.launcher.kind=process", until="generate")
