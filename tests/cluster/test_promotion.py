"""Gate, publish, promote on a real cluster, up to what a client of the gateway sees: a version
comes into production, a refused one changes nothing, and one whose pods never start is put back.

Needs the core image on the nodes; vLLM is a small server from a ConfigMap. The stages run here,
with the rights of the pipeline's account.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from moaa import __version__
from moaa.artifacts import Artifact
from moaa.gateway.slots import Slots, pointed, revision_of
from moaa.recipe.load import load_file
from moaa.registry import production
from moaa.store import Missing
from tests.cluster.charts import fake_engine, serving
from tests.cluster.leased import as_account
from tests.cluster.s3 import s3
from tests.cluster.served import TINY, Served, gateways_of
from tests.cluster.tools import namespace, needs_cluster, until
from tests.support.paths import DEMO
from tests.support.publishing import evaluation, trained

pytestmark = needs_cluster
ACCOUNT = "moaa-pipeline"
POINTERS = "s3://moaa/pointers/aligned"
STUCK, NEXT = "s3://moaa/models/stuck", "s3://moaa/models/next"
MIN_REQUESTS = 500
VALUES: dict[str, Any] = {
    **serving(),
    "promoted": [{"name": "aligned", "pointers": POINTERS}],
    "gateway": {
        "enabled": True,
        "resources": TINY,
        "drainSeconds": 5,
        "autoscaling": {"enabled": False},
    },
    "networkPolicy": {"s3": {"ports": [8333]}},
}
VALUES["images"]["core"] = f"moaa/core:{__version__}"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with namespace("promotion") as ns, s3(ns) as store:
        store.secret(ns)
        fake_engine(ns)
        ns.kubectl("create", "serviceaccount", ACCOUNT)
        for version in (STUCK, NEXT):
            store.store.put(f"{version}/config.json", b"{}")
            store.store.put(f"{version}/model.safetensors", b"0")
        with gateways_of(ns, store, VALUES) as made:
            yield made


def retrained(served: Served, number: int, won: int, folder: Path) -> dict[str, Any]:
    """Run gate, publish and promote for a training that won so many of 40 prompts; return the facts
    of the three stages."""
    store = served.s3.store
    sets = [
        "gate={min_prompts: 10, more: {truncated: 1, empty: 1, repeated: 1, refused: 1}}",
        "publish={name: aligned}",
        "promote={slots: aligned, steps: [50, 100], hold_s: 90, hold_requests: 40, "
        "deadline_s: 240}",
        f"runtime.cluster.namespace={served.ns.name}",
    ]
    recipe = load_file(DEMO, sets).recipe
    found = {
        "sft": trained(store, "sft", number),
        "dpo": trained(store, "dpo", number),
        "scores": evaluation(store, number, won),
    }
    facts = {}
    with as_account(served.ns, ACCOUNT, folder):
        for name in ("gate", "publish", "promote"):
            stage = getattr(import_module(f"moaa.stages.{name}"), name)
            inputs = {each: found[each] for each in stage.declaration.inputs if each in found}
            made = Artifact(store, stage.run(recipe, store, inputs)[0])
            found |= dict.fromkeys(stage.declaration.outputs, made)
            facts[name] = dict(made.manifest.facts)
    return facts


def state(served: Served) -> Slots:
    return Slots.of(served.ns.get("configmap", "ens-aligned").get("data") or {})


@contextmanager
def clients(served: Served) -> Iterator[Counter[int]]:
    """Ask all the time, at both replicas; count the statuses. At least MIN_REQUESTS are asked."""
    codes: Counter[int] = Counter()
    over = threading.Event()

    def keep_asking(at: int) -> None:
        number = 0
        while not over.is_set() or codes.total() < MIN_REQUESTS:
            number += 1
            codes[served.ask("aligned", f"{at} {number}", at=at)[0]] += 1

    threads = [threading.Thread(target=keep_asking, args=(at,)) for at in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        yield codes
    finally:
        over.set()
        for thread in threads:
            thread.join(240)


def test_what_the_gate_promotes_answers_its_clients(served: Served, tmp_path: Path) -> None:
    facts = retrained(served, 1, 40, tmp_path)
    version = facts["publish"]["published"]
    assert facts["promote"]["promoted"] == version, facts["promote"]
    current = production.read(served.s3.store, "aligned").current
    assert current
    assert (current.version, current.uri) == (version["version"], version["uri"])
    assert set(served.revisions()) == {revision_of(version["uri"])}


def test_a_second_version_takes_over_while_clients_ask(served: Served, tmp_path: Path) -> None:
    with clients(served) as codes:
        facts = retrained(served, 2, 40, tmp_path)
    assert set(codes) == {200}, codes
    held = re.search(r"held 100 % for (\d+) s, (\d+) requests$", state(served).reason)
    assert held, state(served).reason
    assert int(held[1]) < 90
    assert int(held[2]) >= 40, "as both gateways have counted"
    assert not state(served).requests
    found = production.read(served.s3.store, "aligned")
    assert found.current
    assert [found.current.uri] == [facts["publish"]["published"]["uri"]]
    assert len(found.history) == 2
    assert set(served.revisions()) == {revision_of(found.current.uri)}


def test_a_refused_one_leaves_production_untouched(served: Served, tmp_path: Path) -> None:
    before = production.read(served.s3.store, "aligned"), state(served)
    facts = retrained(served, 3, 5, tmp_path)
    assert facts["gate"]["decision"]["verdict"] == "refuse"
    assert (facts["publish"]["published"], facts["promote"]["promoted"]) == (None, None)
    assert facts["promote"]["why"].startswith("refuse: ")
    assert (production.read(served.s3.store, "aligned"), state(served)) == before
    assert set(served.revisions()) == {revision_of(before[0].history[0].uri)}


def test_a_version_whose_pods_never_start_is_put_back_and_no_request_fails(served: Served) -> None:
    before = production.read(served.s3.store, "aligned"), state(served)
    with clients(served) as codes:
        done = served.moaa("promote", "aligned", STUCK, "--hold", "5", "--deadline", "45")
    assert done.returncode == 3, done.stderr
    assert "did not start" in done.stderr
    assert set(codes) == {200}, codes
    assert codes.total() >= MIN_REQUESTS
    after = state(served)
    assert (after.production, after.shares) == (before[1].production, before[1].shares)
    assert after.slots[after.production] == before[1].slots[after.production]
    assert production.read(served.s3.store, "aligned") == before[0]
    told = [each for each in served.ns.items("events") if each["reason"] == "MoaaNotPromoted"]
    assert revision_of(STUCK) in told[-1]["message"]
    assert set(served.revisions()) == {revision_of(before[0].history[0].uri)}


def test_a_slot_that_restarts_serves_what_its_own_pointer_says(served: Served) -> None:
    now = state(served)
    slot = now.production
    pods = f"deployment/ens-aligned-{slot}"
    served.ns.kubectl("rollout", "restart", pods)
    served.ns.kubectl("rollout", "status", pods, "--timeout=120s")
    uri = f"{POINTERS}/{slot}.json"
    pointer = pointed(served.s3.store.get(uri).decode(), uri)
    assert pointer == now.slots[slot].source
    _, revision, body = served.ask("aligned")
    assert revision == json.loads(body)["system_fingerprint"] == revision_of(pointer)


def test_killed_between_pointer_and_rollout_the_next_attempt_ends_well(served: Served) -> None:
    before = state(served)
    uri = f"{POINTERS}/{before.candidate}.json"

    def points_at(source: str) -> bool:
        with suppress(Missing):  # nothing was in this slot yet
            return pointed(served.s3.store.get(uri).decode(), uri) == source
        return False

    with served.start("promote", "aligned", NEXT, "--steps", "100", "--hold", "1") as started:
        try:
            until(lambda: points_at(NEXT), "the pointer")
        finally:
            started.kill()
    assert state(served).shares == before.shares
    assert set(served.revisions()) == {before.slots[before.production].revision}
    # The lease of the killed one is waited for: nobody can tell that it is dead before.
    again = served.moaa("promote", "aligned", NEXT, "--steps", "100", "--hold", "1")
    assert not again.returncode, again.stderr
    assert set(served.revisions()) == {revision_of(NEXT)}
    assert state(served).production == before.candidate
