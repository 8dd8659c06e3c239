"""The gateway on a real cluster, two replicas of it: plain models, a mixture, a canary with two
revisions, a bad one that is rolled back, and a model that both wake once.

Needs the core image on the nodes; vLLM is a small server from a ConfigMap.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from moaa import __version__
from moaa.gateway.slots import revision_of
from tests.charts.render import SERVING
from tests.cluster.charts import SERVING_KINDS, fake_engine, install, serving
from tests.cluster.s3 import s3
from tests.cluster.served import TINY, Served, gateways_of
from tests.cluster.tools import namespace, needs_cluster, tried, until

pytestmark = needs_cluster
ROOT_URI = "s3://moaa/models"
OLD, NEW, BAD = (f"{ROOT_URI}/{name}" for name in ("v1", "v2", "v3-bad"))


def values(**gateway: Any) -> dict[str, Any]:
    ways = {"replicas": 1}
    made = serving(
        {"name": "one", "servedName": "One-1B", **ways},
        {"name": "two", "servedName": "Two-1B", **ways},
        {"name": "sleepy"},
    )
    made["images"]["core"] = f"moaa/core:{__version__}"
    made["promoted"] = [{"name": "aligned", "pointers": "s3://moaa/pointers/aligned"}]
    made["mixtures"] = {
        "moa": {
            "proposers": [{"model": "One-1B"}, {"model": "Two-1B"}],
            "aggregator": {"model": "Two-1B"},
        }
    }
    made["gateway"] = {
        "enabled": True,
        "wake": {"enabled": True},
        "resources": TINY,
        "drainSeconds": 5,
        "autoscaling": {"enabled": False},
        "test": {"secretName": "client"},
        **gateway,
    }
    made["networkPolicy"] = {"s3": {"ports": [8333]}}
    return made


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with (
        namespace("gateway", pod_security_kubernetes_io__enforce="restricted") as ns,
        s3(ns) as store,
    ):
        store.secret(ns)
        fake_engine(ns)
        for version in (OLD, NEW, BAD):
            store.store.put(f"{version}/config.json", b"{}")
            store.store.put(f"{version}/model.safetensors", b"0")
        with gateways_of(ns, store, values()) as made:
            yield made


def test_helm_test_asks_a_plain_model_a_mixture_and_streams(served: Served) -> None:
    done = tried("helm", "test", "ens", "-n", served.ns.name, "--timeout", "120s")
    said = done.stdout + done.stderr
    assert not done.returncode, said
    for model in ("One-1B (plain)", "Two-1B (plain)", "moa (mixture)"):
        assert f"ok    {model}, whole:" in said
        assert f"ok    {model}, stream:" in said
    assert "ok    sleepy (plain): asleep, not asked" in said


def test_without_a_key_nobody_may_ask(served: Served) -> None:
    request = urllib.request.Request(f"{served.urls[0]}/v1/models")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)


def test_two_gateways_wake_a_model_once_while_their_streams_wait(served: Served) -> None:
    before = served.ns.get("deployment", "ens-sleepy")
    answered: list[tuple[int, str, str]] = [(0, "", "")] * 2

    def wait(at: int) -> None:
        answered[at] = served.ask("sleepy", at=at, stream=True)

    threads = [threading.Thread(target=wait, args=(at,)) for at in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for code, _, body in answered:
        assert code == 200
        assert body.startswith(": waking sleepy, 0 s of at most")
        assert body.endswith("data: [DONE]\n\n")
        assert "Hel" in body
    after = served.ns.get("deployment", "ens-sleepy")
    assert (before["spec"]["replicas"], after["spec"]["replicas"]) == (0, 1)
    assert after["metadata"]["generation"] - before["metadata"]["generation"] == 1
    leases = [each["spec"]["holderIdentity"] for each in served.ns.get("leases")["items"]]
    assert leases.count("gateway/ens/ens-sleepy") == 1


def test_a_version_is_promoted_beside_the_one_in_production(served: Served) -> None:
    first = served.moaa("promote", "aligned", OLD)
    assert not first.returncode, first.stderr
    until(lambda: served.ask("aligned")[0] == 200, "the first version")
    assert set(served.revisions()) == {revision_of(OLD)}
    _, _, body = served.ask("aligned")
    assert json.loads(body)["system_fingerprint"] == revision_of(OLD), "the pod's own word"

    second = served.moaa("promote", "aligned", NEW, "--steps", "50,100", "--hold", "3")
    assert not second.returncode, second.stderr
    time.sleep(2)
    assert set(served.revisions()) == {revision_of(NEW)}
    listed = served.moaa("models").stdout
    assert f"aligned: {revision_of(NEW)}, 100 %" in listed


def test_a_rollback_is_seen_within_two_seconds(served: Served) -> None:
    assert set(served.revisions()) == {revision_of(NEW)}
    back = served.moaa("rollback", "aligned", "--reason", "a test")
    assert not back.returncode, back.stderr
    time.sleep(2)
    assert set(served.revisions()) == {revision_of(OLD)}


def test_a_bad_version_is_rolled_back_and_no_request_fails(served: Served) -> None:
    codes: Counter[int] = Counter()
    stop = threading.Event()

    def keep_asking() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            codes[served.ask("aligned", f"c{number}", at=number % 2)[0]] += 1

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        done = served.moaa("promote", "aligned", BAD, "--steps", "25,100", "--hold", "60")
    finally:
        stop.set()
        asking.join(60)
    assert done.returncode == 3, done.stderr
    assert "failed" in done.stderr
    assert set(codes) == {200}, codes
    assert set(served.revisions()) == {revision_of(OLD)}
    events = served.ns.items("events")
    told = [each for each in events if each["reason"] == "MoaaRolledBack"]
    assert len(told) == 1
    assert revision_of(BAD) in told[0]["message"]


def test_an_upgrade_leaves_the_shares_and_the_engines_alone(served: Served) -> None:
    before = served.ns.get("configmap", "ens-aligned")["data"]
    engines = {each["metadata"]["uid"] for each in served.ns.items("pods", "moaa.dev/model=one")}
    install(served.ns, "ens", SERVING, values(config={"limits": {"in_flight": 100}}))
    assert served.ns.get("configmap", "ens-aligned")["data"] == before
    now = {each["metadata"]["uid"] for each in served.ns.items("pods", "moaa.dev/model=one")}
    assert now == engines
    file = served.ns.get("configmap", "ens-gateway")["data"]["gateway.yaml"]
    assert "in_flight: 100" in file


def test_nothing_is_left_after_it_is_uninstalled(served: Served) -> None:
    served.ns.helm("uninstall", "ens", "--wait")
    mine = ("-l", "app.kubernetes.io/instance=ens", "-o", "name")
    # Helm does not wait for pods that are ending: the gateway's drain their streams first.
    until(lambda: not served.ns.kubectl("get", SERVING_KINDS, *mine).split(), "the end", 120)
