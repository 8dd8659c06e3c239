"""A container's log, read again and again: each line once, none lost."""

from __future__ import annotations

from moaa.kubernetes.logs import Log
from tests.support.kube_server import KubeServer

HERE = ("p", "c", False)


def test_a_line_is_told_once(kube: KubeServer) -> None:
    log = Log(kube.cluster(), "p", "c")
    kube.logs[HERE] = "2026-01-01T00:00:01.000000001Z one\n2026-01-01T00:00:01.000000002Z two\n"
    assert list(log.read()) == ["one", "two"]
    kube.logs[HERE] += "2026-01-01T00:00:01.000000003Z two\n2026-01-01T00:01:00Z three\n"
    assert list(log.read()) == ["two", "three"]
    assert list(log.read()) == []


def test_a_line_of_the_other_stream_that_comes_late_with_an_earlier_stamp_is_not_lost(
    kube: KubeServer,
) -> None:
    log = Log(kube.cluster(), "p", "c")
    kube.logs[HERE] = (
        "2026-01-01T00:00:01Z begins\n2026-01-01T00:00:05.000000900Z the last word of standard "
        "output\n"
    )
    assert len(list(log.read())) == 2
    kube.logs[HERE] += "2026-01-01T00:00:05.000000100Z generate failed\n"
    assert list(log.read()) == ["generate failed"]
    assert list(log.read()) == []


def test_what_is_long_read_is_asked_for_no_more(kube: KubeServer) -> None:
    log = Log(kube.cluster(), "p", "c")
    kube.logs[HERE] = "".join(f"2026-01-01T00:00:{second:02}Z {second}\n" for second in range(60))
    assert len(list(log.read())) == 60
    assert list(log.read()) == []
    assert len(log._seen) == len(log._recent) == 3


def test_words_without_a_stamp_are_told_as_they_are(kube: KubeServer) -> None:
    log = Log(kube.cluster(), "p", "c")
    kube.logs[HERE] = "unable to retrieve container logs for containerd://0123\n"
    assert list(log.read()) == ["unable to retrieve container logs for containerd://0123"]
    assert list(log.read()) == []
