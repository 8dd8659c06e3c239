"""Kubeflow's API client, whose errors say what to do."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from typing import Any

from moaa.errors import MoaaError

STANDALONE = "kubeflow"
"""The namespace of a run's pods if no profile is given: Kubeflow's own."""


class SubmitError(MoaaError):
    """Kubeflow cannot be reached, or does not accept the run. `status`: its HTTP answer, if any."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def connect(host: str, namespace: str | None) -> Any:
    """Return Kubeflow's client.

    Environment: KFP_TOKEN is a bearer token, KFP_CA the file of the host's certificate authority.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kfp import Client

        class Quick(Client):  # type: ignore[misc, unused-ignore]  # kfp has no types
            def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
                """Ask once. The original prints five tracebacks in 25 s for a wrong token."""
                return self._healthz_api.healthz_service_get_healthz()

        with refusals(host):
            client = Quick(
                host=host,
                namespace=namespace or STANDALONE,
                existing_token=os.environ.get("KFP_TOKEN"),
                ssl_ca_cert=os.environ.get("KFP_CA"),
            )
            if not client.get_user_namespace() and client.get_kfp_healthz().multi_user:
                raise SubmitError(
                    f"Kubeflow at {host} has many users: name the namespace of your profile by "
                    "--namespace."
                )
    return client


@contextlib.contextmanager
def refusals(host: str) -> Iterator[None]:
    """Turn the errors of Kubeflow's client into one readable error."""
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise SubmitError(
            f"Kubeflow at {host} refuses (HTTP {error.status}): "
            f"{_message(error)}{_hint(error.status)}",
            error.status,
        ) from None
    except HTTPError as error:
        raise SubmitError(
            f"Kubeflow at {host} does not answer: {error}. Correct --host, or reach it by "
            "`kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80` and --host "
            "http://localhost:8080."
        ) from None


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.body or error.reason)[:500]


def _hint(status: int) -> str:
    if status in (401, 403):
        return (
            " Put a token that Kubeflow accepts into KFP_TOKEN; if Kubeflow has many users, name "
            "your profile by --namespace."
        )
    return ""
