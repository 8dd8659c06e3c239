"""Where the chart gets weights from, and which pods have keys for it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from tests.charts.render import SERVING, needs_helm, objects, of
from tests.charts.serving import CPU, HUB, S3, env, pod

pytestmark = needs_helm
FOLDER = f"/models/own-{hashlib.sha256(b's3://moaa/dpo/1f0c').hexdigest()[:8]}"


def secrets(container: dict[str, Any]) -> dict[str, str]:
    """Return {variable: the Secret that it comes from}."""
    return {
        each["name"]: secret["name"] + (" (optional)" if secret.get("optional") else "")
        for each in container["env"]
        if (secret := each.get("valueFrom", {}).get("secretKeyRef"))
    }


def test_with_a_clouds_identity_no_pod_gets_keys() -> None:
    given = {"s3": {"secretName": ""}, "serviceAccount": {"annotations": {"cloud/role": "reader"}}}
    found = objects(SERVING, {"models": [S3], **given})
    (fetch,) = of("Deployment", found)["spec"]["template"]["spec"]["initContainers"]
    assert secrets(fetch) == {}
    assert of("ServiceAccount", found)["metadata"]["annotations"] == {"cloud/role": "reader"}


def test_engines_ask_for_the_key_of_their_secret_unless_told_otherwise() -> None:
    found = objects(SERVING, {"models": [HUB]})
    key = of("Secret", found, "moaa-engines")["data"]["VLLM_API_KEY"]
    assert len(base64.b64decode(key)) == 40 or key == "cmFuZG9t"
    container = of("Deployment", found)["spec"]["template"]["spec"]["containers"][0]
    assert secrets(container)["VLLM_API_KEY"] == "moaa-engines"
    assert secrets(of("Pod", found)["spec"]["containers"][0]) == {"VLLM_API_KEY": "moaa-engines"}
    given = {"models": [HUB], "apiKey": {"create": False, "secretName": "mine"}}
    found = objects(SERVING, given)
    assert "Secret" not in {each["kind"] for each in found}
    container = of("Deployment", found)["spec"]["template"]["spec"]["containers"][0]
    assert secrets(container)["VLLM_API_KEY"] == "mine"
    found = objects(SERVING, {"models": [HUB], "apiKey": {"enabled": False}})
    assert "Secret" not in {each["kind"] for each in found}
    assert "VLLM_API_KEY" not in str(
        of("Deployment", found)["spec"]["template"]["spec"]["containers"][0]["env"]
    )


def test_weights_from_s3_are_fetched_and_verified_before_vllm_starts_and_only_there_are_keys() -> (
    None
):
    made = pod(S3)
    (fetch,) = made["initContainers"]
    assert fetch["command"][-3:] == ["fetch", "s3://moaa/dpo/1f0c", FOLDER]
    assert (fetch["image"], secrets(fetch)) == (
        "moaa/core:0.1.0",
        {
            "AWS_ACCESS_KEY_ID": "moaa-s3",
            "AWS_SECRET_ACCESS_KEY": "moaa-s3",
            "AWS_SESSION_TOKEN": "moaa-s3 (optional)",
            "AWS_ENDPOINT_URL_S3": "moaa-s3 (optional)",
            "AWS_REGION": "moaa-s3 (optional)",
        },
    )
    assert "nvidia.com/gpu" not in fetch["resources"]["limits"]
    container = made["containers"][0]
    assert container["command"] == ["vllm", "serve", FOLDER]
    assert "envFrom" not in container
    assert not [name for name in env(container) if name.startswith("AWS") or name == "HF_TOKEN"]
    assert env(container)["HF_HUB_OFFLINE"] == "1"


def test_weights_of_a_package_are_made_by_the_serving_image_without_keys() -> None:
    (fetch,) = pod({"name": "tiny", "source": "package:tiny/model.gguf"}, pools=CPU)[
        "initContainers"
    ]
    assert fetch["image"] == "moaa/serve:0.1.0"
    assert "envFrom" not in fetch
    assert secrets(fetch) == {}


def test_weights_from_the_hub_are_vllms_own_affair() -> None:
    made = pod(HUB, hub={"secretName": "keys"})
    assert "initContainers" not in made
    found = env(made["containers"][0])
    assert found["HF_HOME"] == "/models/hub"
    assert found["HF_TOKEN"] == {
        "secretKeyRef": {"name": "keys", "key": "HF_TOKEN", "optional": True}
    }


@pytest.mark.parametrize(
    ("weights", "volume"),
    [
        ({}, {"emptyDir": {}}),
        ({"claim": "mine", "size": "1Ti"}, {"persistentVolumeClaim": {"claimName": "mine"}}),
        ({"size": "1Ti"}, {"persistentVolumeClaim": {"claimName": "ex-weights"}}),
    ],
)
def test_weights_are_kept_where_the_values_say(
    weights: dict[str, str], volume: dict[str, Any]
) -> None:
    found = objects(SERVING, {"models": [S3], "weights": weights})
    assert {"name": "models", **volume} in of("Deployment", found)["spec"]["template"]["spec"][
        "volumes"
    ]
    claims = [each for each in found if each["kind"] == "PersistentVolumeClaim"]
    assert [each["metadata"]["name"] for each in claims] == (
        ["ex-weights"] if "size" in weights and "claim" not in weights else []
    )
