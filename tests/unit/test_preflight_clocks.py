"""Clocks that agree, are apart, or tell nothing."""

from __future__ import annotations

import pytest

from moaa.errors import StoreError
from moaa.preflight import clocks
from tests.support.kfp_server import KfpServer


def clock(read: object) -> object:
    (found,) = clocks.findings({"S3": read}, now=lambda: 1000.0)  # type: ignore[dict-item]
    return found


@pytest.mark.parametrize(
    ("there", "ok", "words"),
    [
        (999.5, True, "agrees with this one"),
        (1028.0, True, "28 s ahead of"),
        (1040.0, False, "40 s ahead of"),
        (900.0, False, "100 s behind"),
    ],
)
def test_how_far_they_are_apart(there: float, ok: bool, words: str) -> None:
    found = clock(lambda: there)
    assert found.ok is ok  # type: ignore[attr-defined]
    assert words in found.detail  # type: ignore[attr-defined]


def test_a_server_without_a_clock() -> None:
    assert clock(lambda: None).word == "?"  # type: ignore[attr-defined]

    def broken() -> float:
        raise StoreError("gone")

    assert clock(broken).word == "?"  # type: ignore[attr-defined]


def test_any_answer_tells_the_time() -> None:
    with KfpServer() as server:  # answers HEAD by 501: an error, with a Date
        assert clocks.of_url(server.url)
    assert clocks.of_url("http://127.0.0.1:9") is None


@pytest.mark.parametrize("header", [None, "", "yesterday", "2026-01-01"])
def test_what_is_no_date(header: str | None) -> None:
    assert clocks.of_date(header) is None


def test_a_date() -> None:
    assert clocks.of_date("Thu, 01 Jan 1970 00:01:00 GMT") == 60
