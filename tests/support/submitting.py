"""Runs for a Kubeflow in this process, with no kubeconfig of whoever runs the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moaa.recipe.load import Loaded, load_file
from tests.support.kfp_server import KfpServer
from tests.support.paths import DEMO


def forget_clusters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No kubeconfig, and none of Kubeflow's own settings of whoever runs this."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none")
    )
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))


@contextmanager
def kubeflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    """A Kubeflow that is asked without pauses, and without a key of whoever runs this."""
    monkeypatch.setattr("moaa.pipelines.submit.POLL_S", 0.01)
    for name in ("KFP_TOKEN", "KFP_CA"):
        monkeypatch.delenv(name, raising=False)
    with KfpServer() as server:
        yield server


def demo(*sets: str) -> Loaded:
    return load_file(DEMO, sets)
