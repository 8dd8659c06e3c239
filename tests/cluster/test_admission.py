"""What the pipeline's account may create and delete on a real cluster, both ways."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa.kubernetes import names
from moaa.train import objects
from moaa.train.job import Launch
from tests.cluster.charts import IMAGE, client, without_reaper
from tests.cluster.leased import kubeconfig_of
from tests.cluster.tools import Namespace, namespace, needs_cluster, run, tried, until
from tests.support import admission
from tests.support.admission import JOBS, RUNS, TRAIN_JOBS, TRAININGS

pytestmark = [needs_cluster, pytest.mark.timeout(300)]
REFUSED = "ValidatingAdmissionPolicy"


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    """With Trainer, and a runner Job that starts regularly."""
    with namespace("guarded-trainer") as made:
        images = {"core": IMAGE, "train": IMAGE}
        recurring = {"enabled": True, "recipe": "name: x", "schedule": "0 0 1 1 *"}
        without_reaper(made, {"images": images, "recurring": recurring})
        yield made


@pytest.fixture(scope="module")
def plain() -> Iterator[Namespace]:
    """Without Trainer: trainings are Indexed Jobs."""
    with namespace("guarded-jobs") as made:
        without_reaper(
            made, {"images": {"core": IMAGE, "train": IMAGE}, "trainer": {"enabled": False}}
        )
        yield made


def launch(ns: Namespace) -> Launch:
    return admission.launch(ns.name, IMAGE)


class Account:
    """Asks to create and delete things, as this account. Nothing is really made."""

    def __init__(self, ns: Namespace, folder: Path, name: str = "moaa-pipeline") -> None:
        self.ns, self._config = ns, ("--kubeconfig", str(kubeconfig_of(ns, name, folder)))

    def create(self, manifest: dict[str, Any]) -> str:
        """Return why it was refused; empty if it was not."""
        manifest = copy.deepcopy(manifest)
        done = tried(
            *("kubectl", *self._config, "-n", self.ns.name, "create", "-f", "-"),
            *("--dry-run=server", "--validate=false"),
            given=json.dumps(manifest),
        )
        return done.stderr.strip() if done.returncode else ""

    def delete(self, *what: str) -> str:
        done = tried(
            *("kubectl", *self._config, "-n", self.ns.name, "delete", *what, "--dry-run=server")
        )
        return done.stderr.strip() if done.returncode else ""


@pytest.fixture(scope="module")
def account(ns: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Account:
    made = Account(ns, tmp_path_factory.mktemp("account"))
    foreign = objects.train_job(launch(ns), "run")
    foreign["spec"]["trainer"]["image"] = "evil:1"
    until(lambda: REFUSED in made.create(foreign), "the policies", 60)
    return made


@pytest.fixture(scope="module")
def without_trainer(plain: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Account:
    made = Account(plain, tmp_path_factory.mktemp("account"))
    foreign = objects.indexed_job(launch(plain), "run")
    foreign["spec"]["template"]["spec"]["containers"][0]["image"] = "evil:1"
    until(lambda: REFUSED in made.create(foreign), "the policies", 60)
    return made


def test_the_training_that_moaa_makes_passes(account: Account) -> None:
    assert account.create(objects.train_job(launch(account.ns), "run")) == ""


# `labels` is a field of Trainer 2.0; later ones drop it before a policy sees it.
@pytest.mark.parametrize("what", [what for what in TRAIN_JOBS if what != "labels"])
def test_a_training_with_something_else_is_refused(account: Account, what: str) -> None:
    made = objects.train_job(launch(account.ns), "run")
    TRAIN_JOBS[what](made["spec"])
    said = account.create(made)
    assert REFUSED in said, said or "it was taken"


def test_the_spec_of_a_training_is_not_changed_afterwards_and_its_annotations_are(
    account: Account, tmp_path: Path
) -> None:
    made = objects.train_job(launch(account.ns), "run")
    made["spec"]["suspend"] = True
    account.ns.apply(made)
    config = str(kubeconfig_of(account.ns, "moaa-pipeline", tmp_path))
    patch = ("kubectl", "--kubeconfig", config, "-n", account.ns.name, "patch", "trainjob")
    name = made["metadata"]["name"]
    joined = json.dumps({"metadata": {"annotations": {names.JOINED: "run/sft/x"}}})
    try:
        run(*patch, name, "--type=merge", "-p", joined)
        spec = json.dumps({"spec": {"trainer": {"image": "evil:1"}}})
        assert tried(*patch, name, "--type=merge", "-p", spec).returncode
    finally:
        account.ns.kubectl("delete", "trainjob", name, "--wait")


def test_people_keep_the_rights_that_they_have(account: Account) -> None:
    made = objects.train_job(launch(account.ns), "run")
    made["spec"]["trainer"]["command"] = ["sleep", "300"]
    account.ns.kubectl("create", "--dry-run=server", "-f", "-", given=json.dumps(made))


@pytest.mark.parametrize("until", [None, "sft"])
def test_the_run_that_a_recurring_job_starts_passes(account: Account, until: str | None) -> None:
    assert account.create(admission.run(account.ns.name, IMAGE, until)) == ""


def test_the_jobs_that_moaa_makes_without_trainer_pass(without_trainer: Account) -> None:
    made = objects.indexed_job(launch(without_trainer.ns), "run")
    assert without_trainer.create(made) == ""
    made["metadata"]["uid"] = "0f2c-x"
    assert without_trainer.create(objects.service(made)) == ""


@pytest.mark.parametrize("what", JOBS | TRAININGS)
def test_a_training_without_trainer_with_something_else_is_refused(
    without_trainer: Account, what: str
) -> None:
    made = objects.indexed_job(launch(without_trainer.ns), "run")
    (JOBS | TRAININGS)[what](made["spec"]["template"])
    said = without_trainer.create(made)
    assert REFUSED in said, said or "it was taken"


@pytest.mark.parametrize("what", JOBS | RUNS)
def test_a_run_with_something_else_is_refused(account: Account, what: str) -> None:
    made = admission.run(account.ns.name, IMAGE)
    (JOBS | RUNS)[what](made["spec"]["template"])
    said = account.create(made)
    assert REFUSED in said, said or "it was taken"


def test_where_the_chart_starts_no_runs_none_is_started(without_trainer: Account) -> None:
    assert REFUSED in without_trainer.create(admission.run(without_trainer.ns.name, IMAGE))


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {names.TRAINING: "x"}},
        {"clusterIP": "None", "ports": [{"port": 80}], "selector": {"app": "theirs"}},
    ],
    ids=["to the outside", "of other pods"],
)
def test_another_service_is_refused(without_trainer: Account, spec: dict[str, Any]) -> None:
    made = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": spec}
    assert REFUSED in without_trainer.create(made)


def test_only_leases_of_moaa_are_written(account: Account) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {}}
    assert account.create(lease | {"metadata": {"name": "moaa-deployment-a-1"}}) == ""
    assert REFUSED in account.create(lease | {"metadata": {"name": "their-controller"}})
    account.ns.apply(lease | {"metadata": {"name": "their-controller"}})
    assert REFUSED in account.delete("lease", "their-controller")


def test_only_pods_of_engines_are_deleted(account: Account) -> None:
    client(account.ns, "engine", {names.PART_OF: names.OURS, names.MODEL: "m"})
    client(account.ns, "theirs", {"app": "x"})
    assert account.delete("pod", "engine") == ""
    assert REFUSED in account.delete("pod", "theirs")
