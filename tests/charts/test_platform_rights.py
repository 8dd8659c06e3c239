"""The rights that moaa-platform gives, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.charts.render import PLATFORM, needs_helm, objects, of
from tests.charts.rights import rights

pytestmark = needs_helm


def crossed(verbs: str, *resources: str) -> set[str]:
    return {f"{verb} {resource}" for verb in verbs.split() for resource in resources}


PIPELINE = (
    crossed("get list watch", "deployments.apps")
    | crossed("get patch", "deployments/scale.apps")
    | crossed("create get list patch delete", "leases.coordination.k8s.io")
    | {"delete pods"}
    | crossed("get list watch", "endpointslices.discovery.k8s.io", "pods", "pods/log", "events")
    | {"delete pods"}  # an engine's that takes requests and answers none
    | crossed("create get list watch patch delete", "trainjobs.trainer.kubeflow.org")
    | {"delete pods"}  # of an engine that hangs: its Deployment starts another one
)

JOBS = crossed("create get list watch patch delete", "jobs.batch") | {"create services"}
KUBEFLOW = crossed("create patch", "workflowtaskresults.argoproj.io") | {
    "get configmaps kfp-launcher",
    "get secrets moaa-s3",
}


def test_the_pipelines_rights_are_these_and_no_others() -> None:
    assert rights(of("Role", objects(PLATFORM), "moaa-pipeline")) == PIPELINE | KUBEFLOW
    without = objects(PLATFORM, {"kubeflow": {"enabled": False}})
    assert rights(of("Role", without, "moaa-pipeline")) == PIPELINE
    jobs = objects(PLATFORM, {"kubeflow": {"enabled": False}, "trainer": {"enabled": False}})
    assert rights(of("Role", jobs, "moaa-pipeline")) == PIPELINE | JOBS
    recurring = {"enabled": True, "recipe": "name: x"}
    runner = objects(PLATFORM, {"kubeflow": {"enabled": False}, "recurring": recurring})
    assert rights(of("Role", runner, "moaa-pipeline")) == PIPELINE | crossed(
        "create get list", "jobs.batch"
    )
    shut = objects(PLATFORM, {"kubeflow": {"enabled": False}, "sandbox": {"enabled": True}})
    assert rights(of("Role", shut, "moaa-pipeline")) == PIPELINE | crossed(
        "create get list delete", "jobs.batch"
    )
    submitted = objects(
        PLATFORM, {"kubeflow": {"enabled": False}, "recurring": {**recurring, "host": "http://kfp"}}
    )
    assert rights(of("Role", submitted, "moaa-pipeline")) == PIPELINE


SHOWN = {
    "deployments": "Deployments",
    "deployments/scale": "Deployments",
    "leases": "Leases",
    "endpointslices": "EndpointSlices",
    "trainjobs": "TrainJobs",
    "jobs": "Jobs",
    "services": "Services",
    "pods": "Pods, their logs, events",
    "pods/log": "Pods, their logs, events",
    "events": "Pods, their logs, events",
    "workflowtaskresults": "Kubeflow's `workflowtaskresults`",
    "configmaps": "ConfigMap `kfp-launcher`, the S3 Secret",
    "secrets": "ConfigMap `kfp-launcher`, the S3 Secret",
}
READ = ("get", "list", "watch")
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "jobs": {"trainer": {"enabled": False}},
    "sandbox": {"sandbox": {"enabled": True}},
    "runner": {"recurring": {"enabled": True, "recipe": "name: x"}},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("column", "account"), [(1, "moaa-pipeline"), (3, "moaa-reaper")])
def test_the_readme_names_every_right(setting: str, column: int, account: str) -> None:
    lines = (PLATFORM / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    written = {row[0].strip(): row[column] for row in rows if len(row) == 4}
    for rule in of("Role", objects(PLATFORM, SETTINGS[setting]), account)["rules"]:
        for resource in rule["resources"]:
            cell = written[SHOWN[resource]]
            if "as TrainJobs" in cell and setting == "jobs":
                cell += written["TrainJobs"]
            for verb in rule["verbs"]:
                word = "scale" if resource.endswith("/scale") else "read" if verb in READ else verb
                assert word in cell, f"{account} may {verb} {resource}"


@pytest.mark.parametrize("account", ["moaa-pipeline", "moaa-reaper"])
def test_named_deployments_are_all_that_may_be_scaled(account: str) -> None:
    values = {"pipeline": {"deployments": ["ensemble-a"]}}
    found = rights(of("Role", objects(PLATFORM, values), account))
    assert {right for right in found if right.startswith("patch deployments")} == {
        "patch deployments/scale.apps ensemble-a",
    }
    assert crossed("get list", "deployments.apps") <= found


def test_the_reapers_rights_are_these_and_no_others() -> None:
    assert rights(of("Role", objects(PLATFORM), "moaa-reaper")) == (
        crossed("get list", "deployments.apps")
        | crossed("get patch", "deployments/scale.apps")
        | crossed("get list delete", "leases.coordination.k8s.io")
        | crossed("get list delete", "trainjobs.trainer.kubeflow.org", "jobs.batch")
    )


def test_accounts_are_bound_to_their_own_roles_and_trainings_have_none() -> None:
    found = objects(
        PLATFORM, {"pipeline": {"alsoBind": [{"name": "pipeline-runner", "namespace": "kubeflow"}]}}
    )
    accounts = {
        each["metadata"]["name"]: each["automountServiceAccountToken"]
        for each in found
        if each["kind"] == "ServiceAccount"
    }
    assert accounts == {"moaa-pipeline": True, "moaa-train": False, "moaa-reaper": False}
    bindings = {
        each["roleRef"]["name"]: {
            (subject["namespace"], subject["name"]) for subject in each["subjects"]
        }
        for each in found
        if each["kind"] == "RoleBinding"
    }
    assert bindings == {
        "moaa-pipeline": {("moaa", "moaa-pipeline"), ("kubeflow", "pipeline-runner")},
        "moaa-reaper": {("moaa", "moaa-reaper")},
    }
    assert not [each for each in found if each["kind"].startswith("ClusterRole")]


def test_admission_binds_our_accounts_in_our_namespace_alone() -> None:
    also = {"pipeline": {"alsoBind": [{"name": "pipeline-runner", "namespace": "kubeflow"}]}}
    found = objects(PLATFORM, also)
    policies = [each for each in found if each["kind"] == "ValidatingAdmissionPolicy"]
    bindings = {
        each["spec"]["policyName"]: each["spec"]
        for each in found
        if each["kind"] == "ValidatingAdmissionPolicyBinding"
    }
    assert bindings.keys() == {each["metadata"]["name"] for each in policies}
    assert len(policies) == 4
    for each in policies:
        (condition,) = each["spec"]["matchConditions"]
        for account in ("moaa:moaa-pipeline", "moaa:moaa-reaper", "kubeflow:pipeline-runner"):
            assert f'"system:serviceaccount:{account}"' in condition["expression"]
        assert each["spec"]["failurePolicy"] == "Fail"
    for binding in bindings.values():
        assert binding["validationActions"] == ["Deny"]
        assert binding["matchResources"]["namespaceSelector"]["matchLabels"] == {
            "kubernetes.io/metadata.name": "moaa"
        }
    off = objects(PLATFORM, {"admissionPolicy": {"enabled": False}})
    assert not [each for each in off if "Admission" in each["kind"]]


def test_without_a_secret_no_pod_gets_keys_of_the_store() -> None:
    """The service accounts' own identity opens it (IRSA, pod identity)."""
    values = {
        "s3": {"secretName": ""},
        "serviceAccounts": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}},
        "recurring": {
            "schedule": "0 1 * * *",
            "recipe": "store: {root: s3://b, access_key_env: K}",
        },
        "kubeflow": {"launcher": {"enabled": True}},
    }
    found = objects(PLATFORM, values)
    rendered = yaml.safe_dump_all(
        [each for each in found if "Admission" not in each["kind"]], width=1000
    )
    assert not [right for right in rights(of("Role", found, "moaa-pipeline")) if "secrets" in right]
    assert "secretKeyRef" not in rendered
    assert "fromEnv: true" in rendered
    assert "moaa-s3" not in rendered
    accounts = [each for each in found if each["kind"] == "ServiceAccount"]
    assert len(accounts) == 3
    assert all(each["metadata"]["annotations"] for each in accounts)
