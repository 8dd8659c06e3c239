"""The gateway over real vLLM pods: a plain model, a mixture, and a promoted model whose two slots
hold two real revisions.

Needs the images core and serve (CPU) on the nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa import __version__
from moaa.gateway.slots import revision_of
from tests.cluster.s3 import s3
from tests.cluster.served import TINY, Served, gateways_of
from tests.cluster.tools import namespace, needs_cluster, tried, until
from tests.support.training import cut_down

pytestmark = [needs_cluster, pytest.mark.timeout(1200)]
ROOT_URI = "s3://moaa/models"
OLD, NEW = f"{ROOT_URI}/three-layers", f"{ROOT_URI}/four-layers"
ENGINE = {
    "sizeGib": 1,
    "kvCacheGib": 0.25,
    "maxModelLen": 1024,
    "resources": {
        "requests": {"cpu": "200m", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "5Gi"},
    },
}


def values() -> dict[str, Any]:
    mixture = {"proposers": [{"model": "small", "sampling": {"n": 2, "max_tokens": 8}}]}
    return {
        "images": {"serve": f"moaa/serve:{__version__}-cpu", "core": f"moaa/core:{__version__}"},
        "poolDefaults": {"device": "cpu", "shmGib": 0.5},
        "modelDefaults": ENGINE,
        "models": [{"name": "small", "source": OLD, "replicas": 1}],
        "promoted": [{"name": "aligned", "pointers": "s3://moaa/pointers/aligned"}],
        "mixtures": {"moa": mixture | {"aggregator": {"model": "small"}}},
        "networkPolicy": {"s3": {"ports": [8333]}},
        "gateway": {
            "enabled": True,
            "resources": TINY,
            "drainSeconds": 5,
            "autoscaling": {"enabled": False},
            "test": {"secretName": "client"},
        },
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        namespace("gateway-vllm", pod_security_kubernetes_io__enforce="restricted") as ns,
        s3(ns) as store,
    ):
        store.secret(ns)
        for name, layers, uri in (("old", 3, OLD), ("new", 4, NEW)):
            store.upload(Path(cut_down(tmp_path_factory.mktemp(name), layers)), uri)
        with gateways_of(ns, store, values(), wait=False) as made:
            until(lambda: made.ask("small")[0] == 200, "the plain model", 600)
            yield made


def text(body: str) -> str:
    found = json.loads(body)["choices"][0]["message"]["content"]
    assert isinstance(found, str)
    return found


def test_helm_test_asks_real_engines(served: Served) -> None:
    done = tried("helm", "test", "ens", "-n", served.ns.name, "--timeout", "300s")
    said = done.stdout + done.stderr
    assert not done.returncode, said
    for model in ("small (plain)", "moa (mixture)"):
        assert f"ok    {model}, whole:" in said
        assert f"ok    {model}, stream:" in said


def test_a_mixture_of_real_engines_streams_and_sums_usage(served: Served) -> None:
    code, _, body = served.ask("moa", "Why is the sky blue?", stream=True)
    assert code == 200
    assert body.endswith("data: [DONE]\n\n")
    code, _, body = served.ask("moa", "Why is the sky blue?")
    assert code == 200
    usage = json.loads(body)["usage"]
    assert usage["completion_tokens"] > usage["completion_tokens_details"]["reasoning_tokens"] > 0


def test_a_canary_of_two_real_revisions(served: Served) -> None:
    first = served.moaa("promote", "aligned", OLD)
    assert not first.returncode, first.stderr
    until(lambda: served.ask("aligned")[0] == 200, "the first version")
    old = text(served.ask("aligned", "What is the capital of France?")[2])
    assert old == text(served.ask("small", "What is the capital of France?")[2]), "the same weights"

    second = served.moaa("promote", "aligned", NEW, "--steps", "50,100", "--hold", "5")
    assert not second.returncode, second.stderr
    until(lambda: set(served.revisions(4)) == {revision_of(NEW)}, "the second version")
    new = text(served.ask("aligned", "What is the capital of France?")[2])
    assert new != old, "the slot serves other weights"


def test_back_to_the_old_revision(served: Served) -> None:
    old = text(served.ask("small", "What is the capital of France?")[2])
    back = served.moaa("rollback", "aligned", "--reason", "a test")
    assert not back.returncode, back.stderr
    until(lambda: set(served.revisions(4)) == {revision_of(OLD)}, "the first version again")
    assert text(served.ask("aligned", "What is the capital of France?")[2]) == old
