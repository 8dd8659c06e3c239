"""Images that a recipe names by their digest, in all that runs on the cluster."""

from __future__ import annotations

from typing import Any

from moaa.placement import helm_values
from moaa.recipe.load import load_file
from tests.charts.admission import Policies
from tests.charts.render import PLATFORM, SERVING, needs_helm, objects, pods
from tests.support import admission
from tests.support.paths import RECIPES

pytestmark = needs_helm
DIGESTS = {
    name: f"registry.example/moaa/{name}:0.1.0@sha256:{digit * 64}"
    for name, digit in (("core", "1"), ("serve", "2"), ("train", "3"))
}
SETS = [f"runtime.cluster.images.{name}='{image}'" for name, image in DIGESTS.items()]


def images(found: list[dict[str, Any]]) -> set[str]:
    return {
        container["image"]
        for each in found
        for pod in pods(each)
        for container in [*pod["containers"], *pod.get("initContainers", [])]
    }


def test_the_charts_have_the_recipes_digests_and_no_other_image() -> None:
    recipe = load_file(RECIPES / "demo-cluster.yaml", SETS).recipe
    assert images(objects(SERVING, helm_values.serving(recipe))) <= set(DIGESTS.values())
    assert images(objects(PLATFORM, helm_values.platform(recipe))) == {
        DIGESTS["core"],
        DIGESTS["train"],
    }


def test_the_admission_policy_takes_the_run_of_these_images() -> None:
    recipe = load_file(RECIPES / "demo-cluster.yaml", SETS).recipe
    recurring = {"enabled": True, "recipe": "name: x"}
    policies = Policies({**helm_values.platform(recipe), "recurring": recurring})
    made = admission.run("moaa", "moaa/all:1", None, *SETS)
    assert "@sha256:" in admission.container(made["spec"]["template"])["image"]
    assert policies.create("jobs", made) == []
