"""When a request that got nothing from a server of its model is tried once more."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from moaa.gateway.backend import Backend
from moaa.gateway.metrics import Metrics
from moaa.gateway.tries import MOST_RETRIES, Lost, Tries
from moaa.gateway.wire import ApiError

ERROR = ApiError(503, "No server is up.", "model_not_up")
UNREACHABLE = Lost(ERROR, doubtful=True, sent=False)
BROKE_OFF = Lost(ERROR, doubtful=True, sent=True)
FULL = Lost(ERROR, doubtful=False, sent=False)


def tried(servers: int, *lost: Lost) -> Sequence[str]:
    """Lose one try after the other; return the servers that were asked."""
    backend = Backend("m", [f"http://m{number}/v1" for number in range(servers)])
    checks = SimpleNamespace(check=lambda *about: None)
    gateway: Any = SimpleNamespace(checks=checks, metrics=Metrics())
    tries, asked = Tries(gateway, backend), []
    for each in lost:
        with backend.replica(without=tries.without) as replica:
            asked.append(replica.url)
        tries.lost(replica, each)
    return asked


@pytest.mark.parametrize("lost", [UNREACHABLE, BROKE_OFF])
def test_the_only_server_is_asked_once_more(lost: Lost) -> None:
    assert tried(1, lost) == ["http://m0/v1"]
    with pytest.raises(ApiError, match="No server is up"):
        tried(1, lost, lost)


def test_the_only_server_is_not_asked_again_at_once_if_it_is_full() -> None:
    with pytest.raises(ApiError):
        tried(1, FULL)


def test_another_server_is_asked_and_each_only_once() -> None:
    assert len(set(tried(3, UNREACHABLE, UNREACHABLE))) == 2
    with pytest.raises(ApiError):
        tried(3, UNREACHABLE, UNREACHABLE, UNREACHABLE)


def test_a_request_that_broke_two_servers_is_given_up() -> None:
    with pytest.raises(ApiError):
        tried(9, BROKE_OFF, BROKE_OFF)


def test_the_number_of_tries_is_bounded() -> None:
    assert len(tried(9, *[UNREACHABLE] * MOST_RETRIES)) == MOST_RETRIES
    with pytest.raises(ApiError):
        tried(9, *[UNREACHABLE] * (MOST_RETRIES + 1))
