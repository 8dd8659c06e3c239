"""The demo on a cluster without Kubeflow, as a user does it: both charts, an S3, then `run
--in-cluster`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from moaa import records
from moaa.placement import helm_values
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from moaa.records import Record
from moaa.store import Store
from tests.charts.render import PLATFORM, SERVING
from tests.cluster.charts import install
from tests.cluster.s3 import S3, s3
from tests.cluster.served import secrets
from tests.cluster.tools import Namespace, namespace
from tests.support.paths import RECIPES, ROOT

RECIPE = RECIPES / "demo-cluster.yaml"
SMALL = {"requests": {"cpu": "500m", "memory": "3Gi"}, "limits": {"cpu": "2", "memory": "8Gi"}}


class Demo:
    """The demo's recipe with these settings in a namespace of its own, which enforces Pod Security
    "restricted"."""

    def __init__(self, ns: Namespace, s3: S3, sets: Sequence[str], recipe: Recipe) -> None:
        self.ns, self.s3, self.sets, self.recipe = ns, s3, sets, recipe
        self.store = Store(recipe.store.root, environ=s3.outside)

    def start(
        self, folder: Path, *more: str, output: IO[str], command: str = "run"
    ) -> subprocess.Popen[str]:
        """`moaa run … --in-cluster`, or another command."""
        sets = [argument for each in self.sets for argument in ("--set", each)]
        program = [sys.executable, "-m", "moaa.cli", command]
        environment = {
            **os.environ,
            **self.s3.outside,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        environment["PYTHONWARNINGS"] = "ignore"
        return subprocess.Popen(
            [*program, str(RECIPE), "--in-cluster", *sets, *more],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def records(self, said: str) -> list[Record]:
        """Return the records of the run that this output names."""
        return records.read(self.store, run_id(said))


@contextmanager
def demo(name: str, *sets: str, gateway: Mapping[str, Any] | None = None) -> Iterator[Demo]:
    """`gateway`: its values; without them none is installed."""
    sets = (f"runtime.cluster.namespace={name}", *sets)
    recipe = load_file(RECIPE, sets).recipe
    with namespace(name, **{"pod-security.kubernetes.io/enforce": "restricted"}) as ns:
        platform = helm_values.platform(recipe)
        platform["pools"]["default"] |= {"shmGib": 1, "tmpGib": 20}
        platform["kubeflow"] = {"enabled": False}
        platform["networkPolicy"] = {"namespaces": [name]}
        install(ns, "platform", PLATFORM, platform)
        serving = helm_values.serving(recipe) | {
            "modelDefaults": {"resources": SMALL},
            "networkPolicy": {"s3": {"ports": [8333]}},
        }
        if gateway:
            serving |= {"gateway": {"enabled": True, **gateway}}
            # A slot is up beside a training of two pods, and the node may have two cores.
            tiny = {**SMALL, "requests": {"cpu": "100m", "memory": "2Gi"}}
            serving["promoted"] = [each | {"resources": tiny} for each in serving["promoted"]]
            ns.apply(secrets())
        install(ns, "ensemble", SERVING, serving)
        with s3(ns) as made:
            made.secret(ns)
            yield Demo(ns, made, sets, recipe)


def run_id(said: str) -> str:
    found = re.search(r"^run +(\S+)", said, re.MULTILINE)
    assert found, f"no run was begun:\n{said}"
    return found[1]
