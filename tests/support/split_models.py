"""A gateway with a promoted model, or with a model that sleeps on a KubeServer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from moaa.gateway.app import build
from moaa.gateway.config import parse_config
from moaa.gateway.slots import Slots
from moaa.gateway.state import Gateway
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, SLICES
from moaa.kubernetes.names import IDLE_REPLICAS
from tests.support.fake_ensemble import deployment
from tests.support.kube_server import KubeServer
from tests.support.streaming_engine import StreamingEngine

SLOTS = {"a": "aligned-a", "b": "aligned-b"}


def key(name: str, **rights: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **rights}


def service(name: str, port: int | None) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": ["127.0.0.1"]}] if port else [],
    }


@asynccontextmanager
async def gateway_of(
    config: dict[str, Any], kube: KubeServer | None = None
) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway, and its address up to `/v1`."""
    given = {"anonymous": True, **config}
    made = Gateway(
        parse_config(json.dumps(given), "gateway.yaml"), kube.cluster() if kube else None
    )
    async with made:
        tasks = [asyncio.create_task(each()) for each in made.background()]
        runner = web.AppRunner(build(made), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield made, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def promoted(engine_a: StreamingEngine, engine_b: StreamingEngine, share: int) -> dict[str, Any]:
    engines = {"aligned-a": engine_a, "aligned-b": engine_b}
    return {
        "models": {
            name: {"endpoints": [engine.url], "served_name": "aligned"}
            for name, engine in engines.items()
        },
        "promoted": {"aligned": {"slots": SLOTS, "share_of_b": share}},
    }


def on_cluster(
    kube: KubeServer, engine_a: StreamingEngine, engine_b: StreamingEngine, slots: Slots
) -> dict[str, Any]:
    """The same with its shares in a ConfigMap, and its engines found on the cluster."""
    for slot, engine in (("a", engine_a), ("b", engine_b)):
        kube.put(DEPLOYMENTS, deployment(f"ens-aligned-{slot}", f"aligned-{slot}"))
        kube.put(SLICES, service(f"ens-aligned-{slot}", engine.port))
    metadata = {"name": "ens-aligned", "namespace": "team"}
    kube.put(CONFIG_MAPS, {"metadata": metadata, "data": slots.data()})
    return {
        "models": {
            f"aligned-{slot}": {"service": f"ens-aligned-{slot}", "served_name": "aligned"}
            for slot in "ab"
        },
        "promoted": {"aligned": {"slots": SLOTS, "config_map": "ens-aligned"}},
    }


def scale(kube: KubeServer, name: str) -> int:
    return int(kube.find(DEPLOYMENTS, name)["spec"]["replicas"])


def sleeping(kube: KubeServer, **times: float) -> dict[str, Any]:
    annotations = {IDLE_REPLICAS: "0"}
    kube.put(DEPLOYMENTS, deployment("ens-m", "m", annotations=annotations))
    return {
        "anonymous": False,
        "keys": [key("may", wake=True), key("may-not")],
        "models": {"m": {"service": "ens-m"}},
        "cluster": {"wake": {"holder": "gateway/ens", **times}},
    }
