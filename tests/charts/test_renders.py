"""Every example renders to the text that was reviewed, and a current, strict cluster would accept
it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moaa.placement import helm_values
from moaa.recipe.load import load_file
from tests.charts import render
from tests.charts.render import (
    CHARTS,
    EXAMPLES,
    FOR,
    SERVING,
    golden,
    helm,
    needs_helm,
    parsed,
    pods,
    text,
)
from tests.charts.schemas import problems
from tests.support.paths import EVERY_RECIPE, PAPER, ROOT

pytestmark = needs_helm
by_example = pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda path: f"{path.parents[1].name}-{path.stem}"
)


@by_example
def test_render_is_the_golden_one(example: Path) -> None:
    assert text(example.parents[1], example) == golden(example).read_text(), (
        "look at it, then: python -m tests.charts.render"
    )


def test_there_is_no_golden_render_without_an_example() -> None:
    assert sorted(render.GOLDEN.rglob("*.yaml")) == sorted(map(golden, EXAMPLES))


@by_example
def test_lint_has_nothing_to_say(example: Path) -> None:
    done = helm("lint", "--strict", *FOR, example.parents[1], "--values", example)
    assert not done.returncode, done.stdout
    assert not [line for line in done.stdout.splitlines() if "WARNING" in line or "ERROR" in line]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_the_defaults_alone_render_and_lint(chart: Path) -> None:
    assert render.objects(chart)
    assert not helm("lint", "--strict", *FOR, chart).returncode


@by_example
def test_kubernetes_knows_every_field(example: Path) -> None:
    found = {
        f"{m['kind']} {m['metadata']['name']}": problems(m)
        for m in parsed(golden(example).read_text())
    }
    assert not {name: wrong for name, wrong in found.items() if wrong}


@by_example
def test_objects_belong_to_the_release_and_have_unique_names(example: Path) -> None:
    found = parsed(golden(example).read_text())
    names = [(m["kind"], m["metadata"]["name"]) for m in found]
    assert len(set(names)) == len(names)
    for manifest in found:
        labels = manifest["metadata"]["labels"]
        assert (labels["app.kubernetes.io/instance"], labels["app.kubernetes.io/part-of"]) == (
            "ex",
            "moaa",
        )


def test_the_schemas_find_what_is_wrong() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c"}]},
    }
    assert problems(pod) == []
    misspelt = {"name": "c", "securityContext": {"readOnlyRootFileSystem": True}}
    assert "readOnlyRootFileSystem" in problems(pod | {"spec": {"containers": [misspelt]}})[0]
    assert "'containers' is a required property" in problems(pod | {"spec": {}})[0]
    assert (
        "is not in kubernetes.json"
        in problems({"apiVersion": "extensions/v1beta1", "kind": "Deployment"})[0]
    )
    runtime: dict[str, Any] = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": "a"},
    }
    assert problems(runtime | {"spec": {"mlPolicy": {"torch": {}}, "template": {"spec": {}}}}) == []
    both = problems(
        runtime | {"spec": {"mlPolicy": {"torch": {"numProcPerNode": 2}}, "template": {"spec": {}}}}
    )
    assert len(both) == 1, "known to Trainer 2.0 and not to 2.3"
    assert "numProcPerNode" in both[0]
    assert "2.3" in both[0]


@by_example
def test_pods_are_restricted(example: Path) -> None:
    """Pod Security "restricted", and more: a read-only root, limits, a fixed image."""
    for manifest in parsed(golden(example).read_text()):
        for pod in pods(manifest):
            security = pod["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security["runAsUser"] > 0
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
            assert pod["enableServiceLinks"] is False
            allowed = {"emptyDir", "persistentVolumeClaim", "configMap", "secret"}
            assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                own = container["securityContext"]
                assert own["allowPrivilegeEscalation"] is False
                assert own["readOnlyRootFilesystem"] is True
                assert own["capabilities"] == {"drop": ["ALL"]}
                assert not container["image"].endswith(":latest")
                assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
                assert (
                    manifest["kind"] == "TrainingRuntime"
                    or {"cpu", "memory"} <= container["resources"]["limits"].keys()
                )


def test_the_ensemble_of_the_paper_is_what_its_recipe_says() -> None:
    recipe = str(PAPER.relative_to(ROOT))  # the values name it
    done = subprocess.run(
        [sys.executable, "-m", "moaa.cli", "recipe", "helm-values", recipe],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (SERVING / "examples" / "leased.yaml").read_text() == done.stdout


@pytest.mark.parametrize("recipe", EVERY_RECIPE, ids=lambda path: path.stem)
def test_a_recipes_values_serve_the_recipe(recipe: Path) -> None:
    """Recipe -> values -> chart -> comparison of preflight: no difference for any recipe."""
    loaded = load_file(recipe).recipe
    found = render.objects(SERVING, helm_values.serving(loaded))
    deployments = [each for each in found if each["kind"] == "Deployment"]
    assert len(deployments) == len(helm_values.served(loaded))
    assert helm_values.differences(loaded, deployments) == []
    changed = load_file(recipe, [f'models."{loaded.target}".max_model_len=1234']).recipe
    (line,) = helm_values.differences(changed, deployments)
    assert f"model '{loaded.target}'" in line
    assert "the recipe says 1234" in line
    assert render.objects(render.PLATFORM, helm_values.platform(loaded))
