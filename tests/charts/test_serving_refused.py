"""moaa-serving: what the chart refuses, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.charts.render import SERVING, needs_helm, objects, of, refusal
from tests.charts.serving import HUB, S3

pytestmark = needs_helm
CPU = {"default": {"device": "cpu"}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"images": {"serve": "moaa/serve:latest"}}, "/images/serve"),
        ({"images": {"serve": "moaa/serve"}}, "/images/serve"),
        ({"images": {"serve": "host:5000/moaa/serve"}}, "/images/serve"),
        ({"models": [HUB | {"tensorParalelSize": 2}]}, "tensorParalelSize"),
        ({"models": [{"name": "a"}]}, "source"),
        ({"models": [HUB | {"name": "Qwen"}]}, "/models/0/name"),
        ({"models": [{"name": "a", "source": "./folder"}]}, "/models/0/source"),
        ({"models": [HUB | {"tensorParallelSize": 0}]}, "minimum"),
        ({"pools": {"a": {"gpu": 1}}}, "gpu"),
        ({"networkPolicy": {"clientLabels": {"moaa.dev/client": None}}}, "clientLabels"),
        ({"nosuch": 1}, "nosuch"),
        ({"models": [HUB, HUB]}, "two have the name 'qwen'"),
        (
            {"models": [HUB | {"pool": "a100"}], "pools": {"h100": {}}},
            "'qwen' is in pool 'a100', which is not one of `pools` (h100)",
        ),
        ({"models": [HUB | {"tensorParallelSize": 2}], "pools": CPU}, "has no GPUs"),
        ({"models": [HUB | {"speculativeTokens": 99}]}, "maximum"),
        ({"models": [HUB | {"speculativeTokens": 4, "task": "reward"}]}, "it writes nothing"),
        ({"models": [S3 | {"revision": "main"}]}, "only hub models have revisions"),
        (
            {"models": [HUB | {"autoscaling": {"kind": "hpa"}}]},
            "leases scale a leased model",
        ),
        (
            {"models": [HUB | {"replicas": 5, "autoscaling": {"kind": "hpa"}}]},
            "the maximum is below the minimum",
        ),
        (
            {"models": [HUB | {"name": "m" * 40}], "fullnameOverride": "a" * 40},
            "more than 63 characters",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(values: dict[str, Any], said: str) -> None:
    assert said in refusal(SERVING, values)


@pytest.mark.parametrize(
    "image",
    [
        "a/b:1",
        "registry.example:5000/team/serve:v1.2_3-cpu",
        "localhost/moaa-test:1",
        f"a/b@sha256:{'0' * 64}",
        f"a:1@sha256:{'f' * 64}",
    ],
)
def test_images_by_tag_or_digest(image: str) -> None:
    made = of("Deployment", objects(SERVING, {"models": [HUB], "images": {"serve": image}}))
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == image
