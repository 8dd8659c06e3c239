"""moaa-platform: runtimes, policies, quotas, the reaper and runs that come again."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from moaa.kubernetes import names
from moaa.recipe.schema import Runtime
from moaa.recipe.secrets import S3_KEYS
from moaa.sandbox import objects as sandbox
from moaa.store.client import S3_SETTINGS
from tests.charts.render import EXAMPLES, PLATFORM, needs_helm, objects, of, parsed, refusal, text
from tests.charts.rights import rights

pytestmark = needs_helm


def test_one_runtime_a_pool_under_the_name_that_the_launcher_looks_for() -> None:
    pools = {
        "a100": {
            "nodeSelector": {"gpu": "a100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "shmGib": 32,
        },
        "cpu": None,
    }
    found = [
        each for each in objects(PLATFORM, {"pools": pools}) if each["kind"] == "TrainingRuntime"
    ]
    by_name = {each["metadata"]["name"]: each["spec"] for each in found}
    assert by_name.keys() == {names.runtime("a100"), names.runtime("cpu")}
    assert of("TrainingRuntime", objects(PLATFORM))["metadata"]["name"] == names.runtime()
    spec = by_name["moaa-train-a100"]
    assert spec["mlPolicy"] == {"numNodes": 1, "torch": {}}
    (job,) = spec["template"]["spec"]["replicatedJobs"]
    assert (job["name"], job["template"]["metadata"]["labels"]) == (
        "node",
        {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"},
    )
    assert job["template"]["spec"]["backoffLimit"] == 0
    pod = job["template"]["spec"]["template"]["spec"]
    assert (
        pod["restartPolicy"],
        pod["serviceAccountName"],
        pod["automountServiceAccountToken"],
    ) == (
        "Never",
        "moaa-train",
        False,
    )
    assert (pod["nodeSelector"], pod["tolerations"]) == (
        {"gpu": "a100"},
        [{"key": "gpu", "operator": "Exists"}],
    )
    (container,) = pod["containers"]
    assert (container["name"], container["image"]) == ("node", "moaa/train:0.1.0")
    assert "envFrom" not in container, "a training gets only what its recipe names"
    secret = {
        each["name"]: each["valueFrom"]["secretKeyRef"]["name"]
        for each in container["env"]
        if "valueFrom" in each
    }
    assert secret == dict.fromkeys((*S3_KEYS, "AWS_SESSION_TOKEN", *S3_SETTINGS), "moaa-s3")
    assert "resources" not in container, "GPUs are what the TrainJob asks for"
    volumes = {each["name"]: each["emptyDir"] for each in pod["volumes"]}
    assert volumes["shm"] == {"medium": "Memory", "sizeLimit": "32Gi"}


def policy(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return dict(of("NetworkPolicy", found, f"ex-{name}")["spec"])


def test_pods_of_moaa_are_closed_but_for_what_they_need() -> None:
    found = objects(PLATFORM)
    default = policy(found, "default")
    assert (default["ingress"], default["policyTypes"]) == ([], ["Ingress", "Egress"])
    dns, outside = default["egress"]
    assert {each["port"] for each in dns["ports"]} == {53}
    assert outside["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]
    trainings = policy(found, "trainings")
    (peer,) = trainings["ingress"][0]["from"]
    assert peer == trainings["egress"][0]["to"][0]
    assert peer["podSelector"] == trainings["podSelector"]
    assert "namespaceSelector" not in peer, "of this namespace alone"
    (runtime,) = [each for each in found if each["kind"] == "TrainingRuntime"]
    template = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    labels = template["template"]["metadata"]["labels"]
    assert labels.items() >= trainings["podSelector"]["matchLabels"].items()
    given = {"namespaces": ["minio"], "identityCidrs": ["169.254.170.23/32"], "cidrs": []}
    default = policy(objects(PLATFORM, {"networkPolicy": given}), "default")
    _, identity, namespaces = default["egress"]
    assert identity["to"] == [{"ipBlock": {"cidr": "169.254.170.23/32"}}]
    assert namespaces["to"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "minio"
    }
    off = objects(PLATFORM, {"networkPolicy": {"enabled": False}})
    assert "NetworkPolicy" not in {each["kind"] for each in off}


def test_programs_of_models_have_no_connection_at_all() -> None:
    """The pods of a sandbox have no `part-of`: no other policy of ours opens anything to them."""
    given: dict[str, Any] = {"sandbox": {"enabled": True}, "networkPolicy": {"enabled": False}}
    shut = policy(objects(PLATFORM, given), "sandbox")
    assert shut["podSelector"] == {"matchLabels": {"moaa.dev/sandbox": "true"}}
    assert (shut["ingress"], shut["egress"]) == ([], [])
    assert shut["policyTypes"] == ["Ingress", "Egress"]
    labels = sandbox.job({"a": ""}, Runtime(), "run")["spec"]["template"]["metadata"]["labels"]
    found = objects(PLATFORM, {"sandbox": {"enabled": True}})
    for each in [each for each in found if each["kind"] == "NetworkPolicy"]:
        wanted = each["spec"]["podSelector"]["matchLabels"]
        picks = wanted.items() <= labels.items()
        assert picks == (each["metadata"]["name"] == "ex-sandbox")


def test_without_trainer_there_are_no_runtimes() -> None:
    assert "TrainingRuntime" not in {
        each["kind"] for each in objects(PLATFORM, {"trainer": {"enabled": False}})
    }


def test_the_launchers_settings_are_what_kubeflow_reads() -> None:
    assert not [each for each in objects(PLATFORM) if each["kind"] == "ConfigMap"]
    given = {
        "enabled": True,
        "pipelineRoot": "s3://b/p",
        "endpoint": "weed:8333",
        "disableSSL": True,
        "secretName": "keys",
    }
    found = objects(PLATFORM, {"kubeflow": {"launcher": given}})
    data = of("ConfigMap", found, "kfp-launcher")["data"]
    assert data["defaultPipelineRoot"] == "s3://b/p"
    default = yaml.safe_load(data["providers"])["s3"]["default"]
    secret = {
        "secretName": "keys",
        "accessKeyKey": "AWS_ACCESS_KEY_ID",
        "secretKeyKey": "AWS_SECRET_ACCESS_KEY",
    }
    assert default == {
        "endpoint": "weed:8333",
        "region": "us-east-1",
        "disableSSL": True,
        "forcePathStyle": True,
        "credentials": {"fromEnv": False, "secretRef": secret},
    }
    assert "get secrets keys" in rights(of("Role", found, "moaa-pipeline"))


def test_a_quota_never_comes_without_default_limits() -> None:
    for example in (each for each in EXAMPLES if each.parents[1] == PLATFORM):
        kinds = [each["kind"] for each in parsed(text(PLATFORM, example))]
        assert kinds.count("ResourceQuota") == kinds.count("LimitRange")
    (limits,) = of("LimitRange", objects(PLATFORM, {"quota": {"enabled": True}}))["spec"]["limits"]
    assert limits["default"].keys() == limits["defaultRequest"].keys() == {"cpu", "memory"}
    assert "defaultLimits" in refusal(
        PLATFORM, {"quota": {"enabled": True, "defaultLimits": {"cpu": None}}}
    )


def test_the_reaper_is_one_pod_that_runs_all_the_time() -> None:
    made = of("Deployment", objects(PLATFORM))["spec"]
    assert (made["replicas"], made["strategy"]) == (1, {"type": "Recreate"})
    pod = made["template"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("moaa-reaper", True)
    (container,) = pod["containers"]
    assert container["command"] == ["python3", "-m", "moaa.kubernetes.reaper"]
    assert {"name": "MOAA_NAMESPACE", "value": "moaa"} in container["env"]
    without = {
        (each["kind"], each["metadata"]["name"])
        for each in objects(PLATFORM, {"reaper": {"enabled": False}})
    }
    assert (
        not {("Deployment", "ex-reaper"), ("Role", "moaa-reaper"), ("RoleBinding", "moaa-reaper")}
        & without
    )


KFP = "http://ml-pipeline:8888"
RUN = "name: monthly\nstore: {root: 's3://b'}\n"
RETRAIN = f"{RUN}gate: {{}}\npublish: {{}}\n"


@pytest.mark.parametrize(
    ("recipe", "more", "command"),
    [
        (RUN, {"host": KFP}, ["submit", "--host", KFP]),
        (RUN, {}, ["run", "--in-cluster"]),
        (RETRAIN, {"host": KFP}, ["retrain", "--wait", "--host", KFP]),
        (
            RETRAIN,
            {"options": ["--budget-usd", "500"]},
            ["retrain", "--wait", "--in-cluster", "--budget-usd", "500"],
        ),
    ],
)
def test_a_recurring_run(recipe: str, more: dict[str, Any], command: list[str]) -> None:
    found = objects(
        PLATFORM,
        {"recurring": {"enabled": True, "recipe": recipe, "schedule": "0 3 * * 1", **more}},
    )
    assert of("ConfigMap", found)["data"]["recipe.yaml"].strip() == recipe.strip()
    cron = of("CronJob", found, "ex-recurring")["spec"]
    assert cron["schedule"] == "0 3 * * 1"
    pod = cron["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    name, *options = command
    assert container["command"] == ["moaa", name, "/recipe/recipe.yaml", *options]
    assert {"name": "recipe", "configMap": {"name": "ex-recurring"}} in pod["volumes"]
    assert pod["serviceAccountName"] == "moaa-pipeline"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"images": {"train": "moaa/train:latest"}}, "/images/train"),
        ({"pools": {"A100": {}}}, "A100"),
        ({"pools": {"a100": {"gpus": 8}}}, "gpus"),
        ({"reaper": {"schedule": "* * * * *"}}, "schedule"),
        ({"pipeline": {"alsoBind": [{"name": "x"}]}}, "namespace"),
        (
            {"kubeflow": {"launcher": {"endpoint": "http://weed:8333"}}},
            "/kubeflow/launcher/endpoint",
        ),
        ({"recurring": {"enabled": True}}, "--set-file recurring.recipe"),
        ({"recurring": {"enabled": True, "recipe": RUN, "options": ["-q"]}}, "no field publish"),
        ({"nosuch": 1}, "nosuch"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(values: dict[str, Any], said: str) -> None:
    assert said in refusal(PLATFORM, values)
