"""Preflight asks about the rights of the accounts that a run uses."""

from __future__ import annotations

from typing import Any

import pytest

from moaa.kubernetes import names
from moaa.kubernetes.kinds import DEPLOYMENTS, JOBS, TRAIN_JOBS
from moaa.placement import helm_values
from moaa.preflight.kinds import (
    MY_REVIEWS,
    NODES,
    QUOTAS,
    REVIEWS,
    RUNTIMES,
    SECRETS,
)
from tests.support.healthy_cluster import (
    healthy,
    look,
    recipe,
)

pytestmark = pytest.mark.usefixtures("s3_tells_the_time")


def test_without_trainer_indexed_jobs_are_chosen_and_their_rights_looked_at() -> None:
    there = healthy().unknown(TRAIN_JOBS).deny("create", "jobs")
    found = look(there)
    assert any(
        each.detail == "Kubeflow Trainer is not installed: trainings run as Indexed Jobs"
        and each.ok
        for each in found
    )
    (bad,) = [each for each in found if each.word != "ok"]
    assert "may not create jobs.batch" in bad.detail


def test_jobs_on_purpose() -> None:
    found = look(healthy(), "runtime.launcher.kind=job")
    assert [each.detail for each in found if each.check == "training"] == [
        "trainings run as Indexed Jobs (runtime.launcher.kind)"
    ]


@pytest.mark.parametrize(
    ("forbidden", "check"),
    [
        (NODES, "pool"),
        (QUOTAS, "quota"),
        (SECRETS, "secret"),
        (RUNTIMES, "training"),
        (DEPLOYMENTS, "ensemble"),
    ],
)
def test_what_may_not_be_seen_is_said_and_fails_nothing(forbidden: Any, check: str) -> None:
    found = [each for each in look(healthy().forbid(forbidden)) if each.word != "ok"]
    assert found
    assert {(each.check, each.word) for each in found} == {(check, "?")}


@pytest.mark.parametrize(
    ("inside", "review", "user"),
    [(True, MY_REVIEWS, None), (False, REVIEWS, "system:serviceaccount:team:moaa-pipeline")],
    ids=["in a pod", "from a laptop"],
)
def test_whose_rights_are_asked_about(inside: bool, review: Any, user: str | None) -> None:
    there = healthy(inside=inside)
    look(there)
    assert {each["kind"] for each in there.reviews} == {review.name}
    assert {each["spec"].get("user") for each in there.reviews} == {user}
    asked = {
        (each["spec"]["resourceAttributes"]["resource"], each["spec"]["resourceAttributes"]["verb"])
        for each in there.reviews
    }
    assert {
        ("deployments", "watch"),
        ("leases", "create"),
        ("trainjobs", "delete"),
        ("endpointslices", "watch"),
        ("events", "list"),
    } <= asked
    assert not {(what, verb) for what, verb in asked if what in ("secrets", "nodes", "configmaps")}


def test_who_may_not_ask_is_told_so() -> None:
    (found,) = [each for each in look(healthy().forbid(REVIEWS)) if each.word != "ok"]
    assert (found.check, found.word) == ("rights", "?")


def test_the_right_to_scale_may_be_limited_to_the_ensembles_deployments() -> None:
    """The platform chart does so where its value pipeline.deployments names them."""
    ensemble = [f"moaa-{names.dns(model)}" for model in helm_values.served(recipe())]
    found = look(healthy().deny("patch", "deployments/scale", but=ensemble))
    assert [each for each in found if each.word != "ok"] == []
    (bad,) = [
        each
        for each in look(healthy().deny("patch", "deployments/scale", but=ensemble[1:]))
        if each.word != "ok"
    ]
    assert "may not patch deployments.apps/scale" in bad.detail


def test_an_account_without_any_right_fails_by_each() -> None:
    there = healthy(inside=True).forbid(DEPLOYMENTS)
    for verb in ("get", "list", "watch"):
        there.deny(verb, "deployments")
    (bad,) = [each for each in look(there) if not each.ok]
    assert bad.detail.startswith("this pod's account may not get, list, watch deployments.apps")


def test_engines_alone_need_no_rights_on_trainings() -> None:
    there = healthy()
    look(there, "runtime.launcher.kind=process")
    assert not {each["spec"]["resourceAttributes"]["resource"] for each in there.reviews} & {
        TRAIN_JOBS.plural,
        JOBS.plural,
    }
