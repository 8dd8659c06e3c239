"""Fixtures of the GPU tests. Without a GPU each test is skipped, with its reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import Draft, Output
from moaa.recipe import schema
from moaa.train.job import Job
from tests.conftest import S3
from tests.gpu import machine, shapes
from tests.gpu.results import Results
from tests.gpu.shapes import SHAPES, Shape

LIMIT_S = 300 if machine.device() == "cuda" else 1800
"""Each test ends within this. A CPU may have other work to do."""
MakeJob = Callable[..., Job]
MakeModel = Callable[[Shape], str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ours = [item for item in items if item.path.is_relative_to(here)]
    reason = machine.why_not() if ours else None
    for item in ours:
        item.add_marker(pytest.mark.timeout(LIMIT_S))
        # The machine's libraries may be of other versions than ours, with warnings of their own.
        item.add_marker(pytest.mark.filterwarnings("default"))
        if reason and not item.get_closest_marker("without_gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Where numbers are written: benchmarks/, or MOAA_GPU_RESULTS. Those of a CPU are only tried
    out, so they go to a temporary folder."""
    trial = tmp_path_factory.mktemp("results") if machine.device() == "cpu" else "benchmarks"
    return Results(Path(os.environ.get("MOAA_GPU_RESULTS", trial)), machine.describe())


@pytest.fixture(scope="session")
def shape() -> Shape:
    """The model whose speed is measured: MOAA_GPU_TEST_SHAPE, or what fits on this machine."""
    fitting = (
        "tiny" if machine.device() == "cpu" else "1b" if machine.memory_gib() > 38 else "small"
    )
    return SHAPES[os.environ.get("MOAA_GPU_TEST_SHAPE", fitting)]


@pytest.fixture(scope="session")
def small() -> Shape:
    """The model for what is not about speed."""
    return SHAPES["tiny" if machine.device() == "cpu" else "small"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Gives the folder of a model with random weights, made once for each shape."""
    made: dict[str, str] = {}

    def make(shape: Shape) -> str:
        if shape.name not in made:
            folder = tmp_path_factory.mktemp(shape.name)
            made[shape.name] = shapes.save(shape, folder, machine.device())
        return made[shape.name]

    return make


@pytest.fixture
def job(s3: S3, model: MakeModel) -> MakeJob:
    """Makes a training job whose data lies on this test's S3."""

    def make(
        rows: list[dict[str, Any]], base: Shape, numbers: dict[str, Any], **fields: Any
    ) -> Job:
        kind = "dpo" if "chosen" in rows[0] else "sft"
        uri = f"{s3.root}/data"
        with Output(s3.store, uri, "test") as out:
            for row in rows:
                out.write(row)
            out.commit(Draft(stage="test", name="test", fingerprint="f"))
        numbers_of: Any = schema.Dpo if kind == "dpo" else schema.Sft
        return Job(
            kind=kind,
            numbers=numbers_of(**numbers),
            base=model(base),
            data=uri,
            output=f"{s3.root}/{fields.pop('name', 'out')}",
            store=schema.StoreAddress(root=s3.root),
            device=fields.pop("device", machine.device()),
            **fields,
        )

    return make
