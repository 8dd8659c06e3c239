"""What the admission policies leave to the pipeline's account, without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from moaa.recipe.schema import Cluster, Images, Runtime
from moaa.sandbox import objects as sandbox
from moaa.train import objects
from tests.charts.admission import Policies
from tests.charts.render import needs_helm
from tests.support import admission
from tests.support.admission import JOBS, RUNS, TRAIN_JOBS, TRAININGS

pytestmark = needs_helm
IMAGE = "moaa/all:1"
IMAGES = {"core": IMAGE, "train": IMAGE}
RECURRING = {"enabled": True, "recipe": "store: {access_key_env: MY_ID, secret_key_env: MY_KEY}"}


@pytest.fixture(scope="module")
def policies() -> Policies:
    return Policies({"images": IMAGES, "recurring": RECURRING, "sandbox": {"enabled": True}})


@pytest.fixture(scope="module")
def others() -> Policies:
    """Of a chart that starts no runs, and runs no programs."""
    return Policies({"images": IMAGES, "trainer": {"enabled": False}})


def run(until: str | None = None, *sets: str) -> dict[str, Any]:
    return admission.run("moaa", IMAGE, until, *sets)


def training() -> dict[str, Any]:
    return objects.indexed_job(admission.launch("moaa", IMAGE), "run")


def programs() -> dict[str, Any]:
    where = Cluster(namespace="moaa", images=Images(core=IMAGE))
    return sandbox.job({"a": "print(1)"}, Runtime(cluster=where), "run")


@pytest.mark.parametrize("until", [None, "sft"])
def test_the_run_that_a_recurring_job_starts_passes(policies: Policies, until: str | None) -> None:
    assert policies.create("jobs", run(until)) == []


def test_a_run_with_keys_and_names_of_its_own_passes(policies: Policies) -> None:
    made = run(
        None,
        "runtime.secret_envs=[HF_TOKEN, WANDB_API_KEY]",
        "store.access_key_env=MY_ID",
        "store.secret_key_env=MY_KEY",
    )
    named = {each["name"] for each in admission.container(made["spec"]["template"])["env"]}
    assert {"MY_ID", "MY_KEY", "WANDB_API_KEY", "VLLM_API_KEY", "AWS_SESSION_TOKEN"} <= named
    assert policies.create("jobs", made) == []


def test_the_trainings_and_programs_that_moaa_makes_pass(
    policies: Policies, others: Policies
) -> None:
    train_job = objects.train_job(admission.launch("moaa", IMAGE), "run")
    assert policies.create("trainjobs", train_job) == []
    assert policies.create("jobs", programs()) == []
    made = training()
    assert others.create("jobs", made) == []
    made["metadata"]["uid"] = "0f2c-x"
    assert others.create("services", objects.service(made)) == []


@pytest.mark.parametrize("what", TRAIN_JOBS)
def test_a_training_with_something_else_is_refused(policies: Policies, what: str) -> None:
    made = objects.train_job(admission.launch("moaa", IMAGE), "run")
    TRAIN_JOBS[what](made["spec"])
    assert policies.create("trainjobs", made)


@pytest.mark.parametrize("what", JOBS | RUNS)
def test_a_run_with_something_else_is_refused(policies: Policies, what: str) -> None:
    made = run()
    (JOBS | RUNS)[what](made["spec"]["template"])
    assert policies.create("jobs", made)


@pytest.mark.parametrize("what", JOBS | TRAININGS)
def test_a_training_without_trainer_with_something_else_is_refused(
    others: Policies, what: str
) -> None:
    made = training()
    (JOBS | TRAININGS)[what](made["spec"]["template"])
    assert others.create("jobs", made)


@pytest.mark.parametrize("label", ["app.kubernetes.io/part-of", "moaa.dev/model", "app"])
def test_programs_with_a_label_that_opens_something_are_refused(
    policies: Policies, label: str
) -> None:
    made = programs()
    admission.labels(made["spec"]["template"])[label] = "moaa"
    assert policies.create("jobs", made)


def test_where_the_chart_starts_no_runs_and_programs_none_are_started(others: Policies) -> None:
    (refused,) = others.create("jobs", run())
    assert "recurring.enabled" in refused
    (refused,) = others.create("jobs", programs())
    assert "sandbox.enabled" in refused


def test_a_key_of_the_store_has_no_name_but_those_of_the_recurring_recipe(
    policies: Policies,
) -> None:
    (refused,) = policies.create("jobs", run(None, "store.access_key_env=OTHER_ID"))
    assert "may set only the variables that moaa sets" in refused


def test_people_keep_the_rights_that_they_have(policies: Policies) -> None:
    made = run()
    JOBS["a shell"](made["spec"]["template"])
    assert policies.create("jobs", made, user="jane") == []
