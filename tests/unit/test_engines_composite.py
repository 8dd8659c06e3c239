"""What the chart serves is leased; what the run has trained is served in the stage's own pod."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moaa import engines
from moaa.chat.client import Client
from moaa.chat.message import Call
from moaa.engines import cores, devices
from moaa.engines.composite import CompositeFleet, trained_from
from moaa.errors import EngineError
from moaa.kubernetes.api import Cluster
from moaa.ledger import Ledger
from moaa.recipe.rounds import made_by_run
from moaa.recipe.schema import Calls, Engines, Model, Runtime, Sampling
from tests.support.asking import MODELS, Bench, mixture
from tests.support.fake_ensemble import Ensemble
from tests.support.kube_server import KubeServer
from tests.support.paths import ROOT
from tests.support.sessions import session_of

BASE, TUNED = Model(source="org/llama"), Model(source="s3://bucket/sft/0123")
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def kube(kube: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubeServer:
    """The cluster that this pod is in; its image has a vLLM (the fake one), and two cores."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests/support/fake_vllm'}{os.pathsep}{ROOT}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cores, "available", lambda: [0, 1])
    monkeypatch.setattr(
        "moaa.engines.process.hardware", lambda: devices.Hardware("cpu", ("0", "1"))
    )
    monkeypatch.setattr(
        "moaa.weights.local.resolve", lambda source, store, revision=None: str(tmp_path)
    )
    monkeypatch.setattr(Cluster, "connect", lambda namespace=None: kube.cluster())
    return kube


async def ask(client: Client, model: str) -> str:
    return (
        await client.send(
            Call(model, ({"role": "user", "content": "Hello"},), Sampling(max_tokens=8))
        )
    ).text


def test_who_is_served_where() -> None:
    models = {"a+b": Model(source="org/a+b"), "llama": BASE, "llama+sft": TUNED, "llama+dpo": TUNED}
    assert made_by_run(models) == {"llama+sft", "llama+dpo"}
    assert trained_from({"llama+sft", "llama+dpo"}) == {"llama"}


async def test_leased_and_own_side_by_side(kube: KubeServer) -> None:
    models = {"judge": Model(source="org/judge"), "llama": BASE, "llama+sft": TUNED}
    ledger = Ledger()
    runtime = Runtime(engines=Engines(kind="kubernetes"), calls=Calls(timeout_s=5))
    with Ensemble(kube, "judge", "idle") as ensemble:
        async with (
            Client(runtime.calls, ledger) as client,
            engines.start(session_of(models, runtime, ledger=ledger), client) as fleet,
        ):
            assert fleet.capacity is None
            await fleet.up(models)
            for model in models:
                assert await ask(client, model)
            assert len(ensemble.pods("judge")) == 1
            await fleet.down(["judge", "llama+sft"])
            assert ensemble.replicas("judge") == 0
            assert await ask(client, "llama")
        assert client.pool("llama").endpoints == []
    assert (
        ledger.events["served in the stage's own pod: llama"]
        == ledger.events["served in the stage's own pod: llama+sft"]
        == 1
    )
    assert "served in the stage's own pod: judge" not in ledger.events


async def test_the_base_is_leased_where_the_chart_serves_it(kube: KubeServer) -> None:
    runtime, ledger = (
        Runtime(engines=Engines(kind="kubernetes"), calls=Calls(timeout_s=5)),
        Ledger(),
    )
    with Ensemble(kube, "llama") as ensemble:
        async with (
            Client(runtime.calls, ledger) as client,
            engines.start(
                session_of({"llama": BASE, "llama+sft": TUNED}, runtime, ledger=ledger), client
            ) as fleet,
        ):
            await fleet.up(["llama"])
            assert ensemble.replicas("llama") == 1
        assert ensemble.replicas("llama") == 0


async def test_a_contestant_without_a_deployment_is_served_in_this_pod(kube: KubeServer) -> None:
    """`moaa evaluate --model NAME=SOURCE --in-cluster`: no chart knows it."""
    runtime, ledger = (
        Runtime(engines=Engines(kind="kubernetes"), calls=Calls(timeout_s=5)),
        Ledger(),
    )
    models = {"judge": Model(source="org/judge"), "candidate": BASE}
    session = replace(session_of(models, runtime, ledger=ledger), own={"candidate"})
    with Ensemble(kube, "judge"):
        async with (
            Client(runtime.calls, ledger) as client,
            engines.start(session, client) as fleet,
        ):
            await fleet.up(models)
            assert await ask(client, "candidate")
    assert ledger.events["served in the stage's own pod: candidate"] == 1
    assert "served in the stage's own pod: judge" not in ledger.events


async def test_only_own_weights_need_no_cluster(kube: KubeServer) -> None:
    runtime, ledger = (
        Runtime(engines=Engines(kind="kubernetes"), calls=Calls(timeout_s=5)),
        Ledger(),
    )
    async with (
        Client(runtime.calls, ledger) as client,
        engines.start(session_of({"llama+sft": TUNED}, runtime, ledger=ledger), client) as fleet,
    ):
        await fleet.up(["llama+sft"])
        assert await ask(client, "llama+sft")
    assert kube.requests == []


async def test_what_nobody_serves(kube: KubeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, ledger = Runtime(engines=Engines(kind="kubernetes")), Ledger()

    async def start(**models: Model) -> None:
        async with (
            Client(runtime.calls, ledger) as client,
            engines.start(session_of(models, runtime, ledger=ledger), client),
        ):
            raise AssertionError

    with pytest.raises(
        EngineError,
        match=r"serves 'judge', 'other' \(label moaa.dev/model=judge, moaa.dev/model=other\). "
        r"Install",
    ):
        await start(judge=BASE, other=BASE, **{"llama+sft": TUNED})

    def none() -> devices.Hardware:
        raise EngineError("no engine can be started: 0 GPUs are visible")

    monkeypatch.setattr("moaa.engines.process.hardware", none)
    with pytest.raises(
        EngineError,
        match=r"^llama\+sft: weights without a Deployment are served .*"
        r"needs the serve image and its GPUs. no engine",
    ):
        await start(**{"llama+sft": TUNED})


def test_the_smaller_capacity_counts() -> None:
    class Bounded:
        def __init__(self, capacity: int | None) -> None:
            self.capacity = capacity

    assert CompositeFleet({"a": Bounded(None), "b": Bounded(2), "c": Bounded(1)}).capacity == 1  # type: ignore[dict-item]
    assert CompositeFleet({"a": Bounded(None)}).capacity is None  # type: ignore[dict-item]
    assert CompositeFleet({"a": Bounded(None), "b": Bounded(2)}, at_most=1).capacity == 1  # type: ignore[dict-item]


@pytest.mark.parametrize("schedule", ["together", "by-turns"])
def test_a_stage_s_calls_over_leased_models(kube: KubeServer, schedule: str) -> None:
    """From method to pod: by turns one Deployment is up at a time, and the rows are equal."""
    bench = Bench(None)  # type: ignore[arg-type]
    most = 0
    with Ensemble(kube, *MODELS) as ensemble:
        scaled = kube.after_patch

        def count(found: dict[str, Any]) -> None:
            nonlocal most
            most = max(most, sum(ensemble.replicas(model) for model in MODELS))
            scaled(found)

        kube.after_patch = count
        fleet = SimpleNamespace(start=engines.start)
        rows = bench.run(range(20), mixture, fleet=fleet, kind="kubernetes", schedule=schedule)  # type: ignore[arg-type]
        assert len({row["row"]["said"] for row in rows.values()}) == 20
        assert most == (3 if schedule == "together" else 1)
        assert [ensemble.replicas(model) for model in MODELS] == [0, 0, 0]
