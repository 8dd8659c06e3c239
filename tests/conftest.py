"""Fixtures that all tests share. Nothing heavy is imported here: unit tests collect in a moment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from moaa.store import Store

# As `make` sets them: the demo's files are in .cache, and nothing asks the network for a model.
os.environ.setdefault("MOAA_PACKAGES", str(ROOT / ".cache" / "pkgs"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@dataclass(frozen=True)
class S3:
    """A real S3 for one test: the environment that names it, and a prefix of the test's own."""

    environment: dict[str, str]
    root: str
    store: Store


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of a SeaweedFS that runs as long as the tests do."""
    from moaa.store import local as local_s3

    with local_s3.serve(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture
def s3(
    s3_environment: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> S3:
    """A store below a fresh prefix; the process's environment names it too, so that recipes and
    child processes find it."""
    from moaa.store import Store

    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    # The same test may run several times in a session (parameters, repeats): the node's name alone
    # is not unique enough.
    count = request.config.stash.get(_COUNT, 0) + 1
    request.config.stash[_COUNT] = count
    root = f"s3://moaa/{re.sub(r'[^a-zA-Z0-9]+', '-', request.node.name)}-{count}"
    return S3(s3_environment, root, Store(root))


_COUNT = pytest.StashKey[int]()
