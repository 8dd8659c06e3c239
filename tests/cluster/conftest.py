"""Tests on a real Kubernetes: the one that KUBECONFIG names. Each file makes a namespace of its own
and removes it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from moaa.kubernetes.api import Cluster
from tests.cluster.charts import IMAGE, without_reaper
from tests.cluster.leased import as_account
from tests.cluster.tools import Namespace, tried


@pytest.fixture(scope="session", autouse=True)
def cluster_answers() -> None:
    """Stop with one clear message if there is no cluster, before a hundred time-outs."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip("KUBECONFIG names no cluster")
    asked = tried("kubectl", "version", "--request-timeout", "10s", "-o", "json", timeout_s=30)
    if asked.returncode:
        pytest.exit(
            f"the cluster that KUBECONFIG ({os.environ['KUBECONFIG']}) names does not answer: "
            f"{asked.stderr.strip()}",
            2,
        )


@pytest.fixture(scope="module")
def cluster(ns: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Use the account that the platform chart makes for pipelines, with its rights alone."""
    with as_account(ns, "moaa-pipeline", tmp_path_factory.mktemp("kube")) as found:
        yield found


@pytest.fixture(scope="module")
def platform(ns: Namespace) -> None:
    """Install the platform chart in the namespace of a file's tests."""
    without_reaper(ns, {"images": {"core": IMAGE, "train": IMAGE}})
