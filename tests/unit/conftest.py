"""Fixtures of the unit tests: servers and stores, all in this process, and what asks them.

A module that needs one of them prepared makes a fixture of the same name that asks for it.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
import yaml
from hypothesis import settings

from moaa import statistics
from moaa.recipe import read
from tests.support import bad_s3, memory_s3
from tests.support.asking import Bench
from tests.support.bad_s3 import BadS3
from tests.support.changing import online
from tests.support.engine_server import EngineServer
from tests.support.fast_clock import FastClockLoop
from tests.support.hub import Hub
from tests.support.journals import attempts
from tests.support.kfp_server import KfpServer
from tests.support.kube_server import KubeServer
from tests.support.launched import connected
from tests.support.memory_s3 import MemoryS3
from tests.support.memory_store import MemoryStore
from tests.support.paths import ROOT
from tests.support.promotions import World
from tests.support.recipes import Write, writer
from tests.support.submitting import forget_clusters, kubeflow

if TYPE_CHECKING:  # what takes a third of a second to import, waits for its test
    from tests.support.incluster import Said
    from tests.support.preflighting import Look

# Property tests are the same in every run; HYPOTHESIS_PROFILE=thorough looks for more.
settings.register_profile("quick", derandomize=True, max_examples=50, deadline=None)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loops that a test runs on: asyncio's, and uvloop's too if it is marked so; or one
    with a fast clock."""
    if item.get_closest_marker("fast_clock"):
        return {"fast_clock": FastClockLoop}
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops"):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


def pytest_collection_finish(session: pytest.Session) -> None:
    """Each worker of xdist reads all files: what takes seconds to import, waits for its test."""
    if all("unit" in item.path.parts for item in session.items):
        heavy = sorted({"torch", "transformers", "kfp", "vllm", "openai"} & set(sys.modules))
        assert not heavy, f"imported at the top of a test file (tests/support/later.py): {heavy}"
    # What is here now stays to the end: a seventh of the tests' time went into looking at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


@pytest.fixture(autouse=True)
def logger_as_it_was() -> Iterator[None]:
    """Handlers that a test gives to moaa's logger end with the test."""
    log = logging.getLogger("moaa")
    handlers, level, propagate = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    """A Kubernetes API server; its `cluster()` is a client of it."""
    with KubeServer() as server:
        yield server


@pytest.fixture
def server() -> Iterator[EngineServer]:
    """An engine that answers at once, for each name that the tests use."""
    with EngineServer("a", "b", "c", "m", "smollm2") as running:
        yield running


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """An empty store, which is also the one of every recipe."""
    memory = MemoryStore("s3://moaa/demo")
    monkeypatch.setattr("moaa.store.s3.Store.of", lambda config, **more: memory)
    return memory


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> MemoryS3:
    """An S3 in memory, which is also that of every store."""
    return memory_s3.install(monkeypatch)


@pytest.fixture
def bad() -> Iterator[BadS3]:
    """An S3 that answers as its script says."""
    with bad_s3.serve() as running:
        yield running


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of models and data sets, which is asked although the tests are offline."""
    with online(monkeypatch) as running:
        yield running


@pytest.fixture
def bench(server: EngineServer) -> Bench:
    """Asks the engine for many conversations."""
    return Bench(server)


@pytest.fixture
def attempt(store: MemoryStore) -> Iterator[Callable[..., Any]]:
    """Opens the journal of another attempt at the same stage."""
    with attempts(store) as opening:
        yield opening


@pytest.fixture
def world(kube: KubeServer) -> World:
    """A promoted model on `kube`, without a version yet."""
    return World(kube)


@pytest.fixture
def quick_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirrors of the cluster try again at once."""
    monkeypatch.setattr("moaa.kubernetes.mirror.RETRY_S", 0.02)


@pytest.fixture
def launcher_on_kube(kube: KubeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launchers of trainings connect to `kube`."""
    connected(kube, monkeypatch)


@pytest.fixture
def runs_on_kube(
    kube: KubeServer, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Runs are Jobs in `kube`, followed without pauses from a folder of the test's own."""
    from tests.support.incluster import followed

    followed(kube, monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """What was printed until now, each time it is called."""
    from tests.support.incluster import Said

    return Said(capsys)


@pytest.fixture
def kfp(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    """A Kubeflow that is asked without pauses."""
    with kubeflow(monkeypatch) as server:
        yield server


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests seems to have no kubeconfig."""
    forget_clusters(monkeypatch, tmp_path)


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Look:
    """Preflight on a machine of four cores, for the demo with changes."""
    from tests.support.preflighting import looking, prepare

    prepare(monkeypatch, tmp_path)
    return looking(tmp_path)


@pytest.fixture
def s3_tells_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preflight finds the clock of S3 right."""
    monkeypatch.setattr("moaa.preflight.clocks.of_url", lambda url: time.time())


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes files into an empty working directory, so that places read `recipe.yaml:3`."""
    monkeypatch.chdir(tmp_path)
    return writer(tmp_path)


@pytest.fixture
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is the top of the repository."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Win rates at equal length have intervals from 60 resamples."""
    fast = partial(statistics.length_adjusted, resamples=60)
    monkeypatch.setattr(statistics, "length_adjusted", fast)


@pytest.fixture(scope="session", autouse=True)
def fast_yaml() -> Iterator[None]:
    """kfp reads what it wrote, and tests read it too: with libyaml in a tenth of the time."""
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "safe_load", partial(yaml.load, Loader=fast))
        patch.setattr(yaml, "safe_load_all", partial(yaml.load_all, Loader=fast))
        yield


@pytest.fixture(scope="session", autouse=True)
def texts_written_once() -> Iterator[None]:
    """Most tests load the demo's recipe: the same content is written as YAML only once."""
    written: dict[str, str] = {}

    def dump(data: object) -> str:
        content = json.dumps(data)
        if content not in written:
            written[content] = read.dump(data)
        return written[content]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moaa.recipe.load.dump", dump)
        yield


@pytest.fixture(scope="session", autouse=True)
def short_stack() -> Iterator[None]:
    """kfp asks for the whole stack, with the source of each frame, to learn its caller's name: 63
    times a compilation. Below pytest and xdist, with many modules loaded, that takes seconds."""
    whole = inspect.stack

    def stack(context: int = 1) -> list[inspect.FrameInfo]:
        kfp = sys._getframe(1)
        if not kfp.f_globals["__name__"].startswith("kfp."):
            return whole(context)
        frames = (kfp, kfp.f_back)
        return [
            inspect.FrameInfo(frame, *inspect.getframeinfo(frame, 0)) for frame in frames if frame
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", stack)
        yield
