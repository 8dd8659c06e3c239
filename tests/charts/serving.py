"""What moaa-serving renders for a model."""

from __future__ import annotations

from typing import Any

from tests.charts.render import SERVING, objects, of

HUB = {"name": "qwen", "source": "Qwen/Qwen2-72B-Instruct"}
S3 = {"name": "own", "source": "s3://moaa/dpo/1f0c"}
CPU = {"default": {"device": "cpu", "cpus": 1.5, "memoryGib": 5}}


def deployment(model: dict[str, Any], **values: Any) -> dict[str, Any]:
    return of("Deployment", objects(SERVING, {"models": [model], **values}))


def pod(model: dict[str, Any], **values: Any) -> dict[str, Any]:
    return deployment(model, **values)["spec"]["template"]["spec"]


def vllm(model: dict[str, Any], **values: Any) -> dict[str, Any]:
    (container,) = pod(model, **values)["containers"]
    return container


def env(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
