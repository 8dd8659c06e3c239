"""Tests on a real Kubernetes: the one that KUBECONFIG names. Each file makes a namespace of its own
and removes it."""

from __future__ import annotations

import os

import pytest

from tests.cluster.tools import tried


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
