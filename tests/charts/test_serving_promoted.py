"""moaa-serving: promoted models, with the gateway and without it."""

from __future__ import annotations

from typing import Any

import pytest

from moaa.gateway.places import PromotedDeployment, place_of
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS
from moaa.placement import helm_values
from moaa.recipe.load import load_file
from tests.charts.render import SERVING, needs_helm, objects, of, refusal
from tests.charts.rights import rights
from tests.charts.test_serving_gateway import PROMOTED, values
from tests.support.kube_server import KubeServer
from tests.support.paths import RECIPES

pytestmark = needs_helm


def place(found: list[dict[str, Any]]) -> PromotedDeployment:
    """The promoted model, as a promotion finds it."""
    with KubeServer() as kube:
        for each in found:
            if each["kind"] in ("ConfigMap", "Deployment"):
                kube.put(CONFIG_MAPS if each["kind"] == "ConfigMap" else DEPLOYMENTS, each)
        return place_of(kube.cluster(), "aligned")


WITHOUT: dict[str, Any] = {"promoted": [PROMOTED]}


@pytest.mark.parametrize(("given", "service"), [(values(), ""), (WITHOUT, "ex-aligned")])
def test_a_promotion_finds_its_model_whose_shares_an_upgrade_leaves_alone(
    given: dict[str, Any], service: str
) -> None:
    found = objects(SERVING, given)
    assert "data" not in of("ConfigMap", found, "ex-aligned"), "an upgrade would reset the shares"
    made = place(found)
    assert made.deployments == {"a": "ex-aligned-a", "b": "ex-aligned-b"}
    assert made.pointer("b") == "s3://m/pointers/aligned/b.json"
    assert made.service == service


def test_the_gateway_keeps_slots_up_and_without_it_both_stay_up() -> None:
    wrong = {**values(), "promoted": [PROMOTED | {"replicas": 1}]}
    assert "leasedReplicas" in refusal(SERVING, wrong)
    for given, replicas in ((values(), 0), (WITHOUT, 1)):
        slots = [of("Deployment", objects(SERVING, given), f"ex-aligned-{slot}") for slot in "ab"]
        assert [each["spec"]["replicas"] for each in slots] == [replicas] * 2


def test_without_the_gateway_a_service_of_the_name_selects_a_slot() -> None:
    found = objects(SERVING, WITHOUT)
    selector = of("Service", found, "ex-aligned")["spec"]["selector"]
    assert selector == of("Deployment", found, "ex-aligned-a")["spec"]["selector"]["matchLabels"]
    may = rights(of("Role", found, "ex-promote"))
    assert {each for each in may if "services" in each} == {
        "get services ex-aligned",
        "patch services ex-aligned",
    }
    with_it = objects(SERVING, values())
    assert not [
        each
        for each in with_it
        if each["kind"] == "Service" and each["metadata"]["name"] == "ex-aligned"
    ]


def test_a_promotion_finds_the_slots_that_a_recipe_names() -> None:
    sets = ["gate={}", "publish={name: chat}", "promote={slots: aligned}"]
    recipe = load_file(RECIPES / "demo-cluster.yaml", sets).recipe
    made = place(objects(SERVING, helm_values.serving(recipe)))
    assert made.pointer("a") == f"{recipe.store.root}/pointers/aligned/a.json"
