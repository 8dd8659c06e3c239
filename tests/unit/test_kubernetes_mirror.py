"""A mirror of objects in the cluster stays true."""

from __future__ import annotations

import re
import threading

import pytest

from moaa.kubernetes.kinds import PODS
from moaa.kubernetes.mirror import Mirror
from tests.support.kube_objects import FORBIDDEN, pod
from tests.support.kube_server import KubeServer
from tests.support.waiting import until

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("quick_mirrors")]


@pytest.mark.parametrize("trouble", ["none", "cut", "410", "503"])
def test_a_mirror_stays_true(kube: KubeServer, trouble: str) -> None:
    kube.put(PODS, pod("old", of="x"))
    kube.put(PODS, pod("foreign", of="y"))
    changes = []
    copied = Mirror(kube.cluster(), PODS, "of=x", lambda: changes.append(1))
    copied.start()
    assert list(copied.objects) == ["old"]
    until(lambda: kube.count("GET", "pods") == 2)
    if trouble == "cut":
        kube.cut_watches()
    elif trouble == "410":
        kube.forget_history()
    elif trouble == "503":
        kube.fail(503, times=3)
        kube.cut_watches()
    kube.put(PODS, pod("new", of="x"))
    kube.put(PODS, pod("new", of="x", again="yes"))
    kube.remove(PODS, "old")
    until(
        lambda: (
            list(copied.objects) == ["new"]
            and "again" in copied.objects["new"]["metadata"]["labels"]
        )
    )
    assert len(changes) >= 2
    assert copied.error is None
    copied.stop()
    until(lambda: not any(thread.name == "mirror of pods" for thread in threading.enumerate()))


def test_a_mirror_never_goes_back(kube: KubeServer) -> None:
    """A watch that broke goes on from the last change that was seen, not from where it began."""
    kube.put(PODS, pod("a", n="0"))
    seen: list[str] = []
    copied = Mirror(
        kube.cluster(),
        PODS,
        "",
        lambda: seen.append(copied.objects["a"]["metadata"]["labels"]["n"]),
    )
    copied.start()
    for n in range(1, 6):
        kube.put(PODS, pod("a", n=str(n)))
        until(lambda: seen[-1] == str(n))  # noqa: B023
        kube.cut_watches()
    copied.stop()
    assert seen == sorted(seen)


def test_a_mirror_without_rights_says_so(kube: KubeServer) -> None:
    woken = threading.Event()
    copied = Mirror(kube.cluster(), PODS, "", woken.set)
    copied.start()
    until(lambda: kube.count("GET", "pods") == 2)
    woken.clear()
    kube.fail(403, FORBIDDEN.format(verb="watch", resource="pods"))
    kube.cut_watches()
    assert woken.wait(10)
    assert re.search("may not watch pods", str(copied.error))
