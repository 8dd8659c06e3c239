"""A training as Kubernetes objects: who gets which fields, and that the same is asked for by the
same name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moaa.errors import RecipeError
from moaa.kubernetes import names
from moaa.placement import images
from moaa.recipe.schema import Cluster, Images, Launcher, Pool, Runtime, StoreAddress
from moaa.train import objects
from moaa.train.job import Job, Launch
from tests.support.jobs import JOB, NAME

POOLS = {
    "gpu": Pool(
        gpus=8,
        cpus=12,
        memory_gib=100,
        node_selector={"kind": "h100"},
        toleration="gpu-only",
        shm_gib=32,
    )
}
COMMON = {"runtimeRef", "trainer"}
"""Fields of a TrainJob's spec that Trainer 2.0 and 2.3 both know."""
TRAINER = {"image", "command", "args", "env", "numNodes", "numProcPerNode", "resourcesPerNode"}


def launch(job: Job = JOB, images: Images = Images(), **launcher) -> Launch:
    runtime = Runtime(
        launcher=Launcher(**{"kind": "trainer", "ranks": 4, "nodes": 2, **launcher}),
        cluster=Cluster(images=images),
    )
    return Launch(job, runtime, POOLS)


def environment(container) -> dict:
    return {each["name"]: each.get("value") for each in container["env"]}


def test_a_train_job_uses_what_all_versions_of_trainer_know_and_the_runtime_of_its_pool():
    made = objects.train_job(launch(pool="gpu"), "run-1")
    assert made["metadata"]["name"] == NAME
    assert made["metadata"]["labels"] == {
        names.PART_OF: "moaa",
        names.RUN: "run-1",
        names.STAGE: "sft",
        names.TRAINING: NAME,
    }
    assert set(made["spec"]) <= COMMON
    assert set(made["spec"]["trainer"]) <= TRAINER
    assert made["spec"]["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": "moaa-train-gpu",
    }
    trainer = made["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    asked = {"cpu": "48", "memory": "400Gi", "nvidia.com/gpu": "4"}
    assert trainer["resourcesPerNode"] == {"requests": asked, "limits": asked}
    assert trainer["command"][-3:] == ["sft", "--job", f"{JOB.output}/job.json"]
    assert environment(trainer)["OMP_NUM_THREADS"] == "12"
    assert "image" not in trainer, "the runtime's stands, unless the recipe names one"
    named = objects.train_job(launch(images=Images(train="r/train:7"), pool="gpu"), "run-1")
    assert named["spec"]["trainer"]["image"] == "r/train:7"


def test_without_a_pool_a_rank_has_one_core_of_any_node():
    made = objects.train_job(launch(ranks=1), "r")["spec"]["trainer"]
    assert made["resourcesPerNode"]["limits"] == {"cpu": "1", "memory": "8Gi"}
    assert environment(made)["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("make", [objects.train_job, objects.indexed_job])
def test_the_digest_tells_what_is_asked_for_whoever_asks(make):
    def digest(run, **launcher):
        return make(launch(**launcher), run)["metadata"]["annotations"][names.DIGEST]

    assert digest("run-1") == digest("run-2")
    assert digest("run-1") != digest("run-1", ranks=2)


def test_more_ranks_than_a_node_has_gpus_are_refused():
    with pytest.raises(
        RecipeError, match=r"sft: runtime\.launcher\.ranks is 16, but a node of pool 'gpu' has 8"
    ):
        objects.train_job(launch(pool="gpu", ranks=16), "r")


def test_the_store_that_a_recipe_names_is_the_pods_too():
    job = JOB.model_copy(
        update={
            "store": StoreAddress(root="s3://b/r", endpoint_url="http://minio:9000", region="eu")
        }
    )
    found = environment(objects.train_job(launch(job), "r")["spec"]["trainer"])
    assert (found["AWS_ENDPOINT_URL_S3"], found["AWS_REGION"]) == ("http://minio:9000", "eu")
    assert not any("KEY" in name for name in found)


def test_an_indexed_job_says_itself_what_trainer_would():
    made = objects.indexed_job(launch(pool="gpu"), "run-1")
    spec, pod = made["spec"], made["spec"]["template"]["spec"]
    assert (
        spec["completionMode"],
        spec["completions"],
        spec["parallelism"],
        spec["backoffLimit"],
    ) == ("Indexed", 2, 2, 0)
    assert (pod["nodeSelector"], pod["tolerations"]) == (
        {"kind": "h100"},
        [{"key": "gpu-only", "operator": "Exists"}],
    )
    container = pod["containers"][0]
    found = environment(container)
    assert found["PET_MASTER_ADDR"] == f"{NAME}-0.{NAME}"
    assert (found["PET_NNODES"], found["PET_NPROC_PER_NODE"], found["PET_MASTER_PORT"]) == (
        "2",
        "4",
        "29500",
    )
    assert container["env"][-1]["name"] == "PET_NODE_RANK"
    assert container["image"] == images.TRAIN
    assert "envFrom" not in container
    assert secrets(container["env"]) == {
        "AWS_ACCESS_KEY_ID": "moaa-s3",
        "AWS_SECRET_ACCESS_KEY": "moaa-s3",
        "AWS_SESSION_TOKEN": "moaa-s3 (optional)",
        "AWS_ENDPOINT_URL_S3": "moaa-s3 (optional)",
        "AWS_REGION": "moaa-s3 (optional)",
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["volumes"][1]["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Gi"}


def test_its_service_finds_the_pods_before_they_are_ready_and_goes_with_the_job():
    made = objects.indexed_job(launch(), "run-1")
    made["metadata"]["uid"] = "u-1"
    found = objects.service(made)
    assert found["metadata"]["name"] == made["spec"]["template"]["spec"]["subdomain"] == NAME
    assert found["spec"]["clusterIP"] == "None"
    assert found["spec"]["publishNotReadyAddresses"]
    assert (
        found["spec"]["selector"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
    )
    assert found["metadata"]["ownerReferences"][0]["uid"] == "u-1"


def test_one_node_is_its_own_master():
    pod = objects.indexed_job(launch(nodes=1), "r")["spec"]["template"]["spec"]
    assert environment(pod["containers"][0])["PET_MASTER_ADDR"] == "127.0.0.1"


def secrets(env: list[Any]) -> dict[str, str]:
    """Return {variable: the Secret that it comes from}."""
    return {
        each["name"]: key["name"] + (" (optional)" if key.get("optional") else "")
        for each in env
        if (key := each.get("valueFrom", {}).get("secretKeyRef"))
    }


def test_a_training_gets_the_variables_that_the_recipe_names_and_no_others() -> None:
    given = launch(kind="trainer")
    assert secrets(objects.train_job(given, "run-1")["spec"]["trainer"]["env"]) == {}
    runtime = given.runtime.model_copy(update={"secret_envs": ("HF_TOKEN", "WANDB_KEY")})
    given = replace(given, runtime=runtime)
    named = {"HF_TOKEN": "moaa-env", "WANDB_KEY": "moaa-env"}
    assert secrets(objects.train_job(given, "run-1")["spec"]["trainer"]["env"]) == named
    pod = objects.indexed_job(given, "run-1")["spec"]["template"]["spec"]
    found = secrets(pod["containers"][0]["env"])
    assert {name: secret for name, secret in found.items() if secret == "moaa-env"} == named


def test_with_a_clouds_identity_a_training_gets_no_keys() -> None:
    given = launch(kind="trainer")
    where = given.runtime.cluster.model_copy(update={"s3_secret": None})
    given = replace(given, runtime=given.runtime.model_copy(update={"cluster": where}))
    pod = objects.indexed_job(given, "run-1")["spec"]["template"]["spec"]
    assert secrets(pod["containers"][0]["env"]) == {}
    assert pod["serviceAccountName"] == objects.ACCOUNT
