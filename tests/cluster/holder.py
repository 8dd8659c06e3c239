"""Leases a model until it is stopped: holder.py MODEL NAMESPACE. Prints `up` once it is leased."""

from __future__ import annotations

import asyncio
import sys

from moaa.asking import loop
from moaa.kubernetes.api import Cluster
from tests.support.leasing import fleet


async def hold(model: str, namespace: str) -> None:
    async with fleet(Cluster.connect(namespace), model) as bench:
        await bench.fleet.up([model])
        print("up", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    loop.run(hold(sys.argv[1], sys.argv[2]))
