"""Leases: who holds what, and when a holder is dead."""

from __future__ import annotations

import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as some

from moaa.errors import MoaaError
from moaa.kubernetes import leases, names, replicas
from moaa.kubernetes.errors import Unreachable
from moaa.kubernetes.kinds import DEPLOYMENTS, LEASES
from moaa.kubernetes.leases import LEASE_S, MOST_APART_S, Lease, Observer, State
from moaa.kubernetes.names import IDLE_REPLICAS, REPLICAS
from tests.support.fake_ensemble import deployment
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import Clock, hold, holders

A, B = "run-1/generate/aa", "run-2/label/bb"


def test_a_lease_is_an_object_of_its_own_that_says_who_holds_what(kube: KubeServer) -> None:
    Lease(kube.cluster(), DEPLOYMENTS, "moaa-smol", A).renew()
    (found,) = kube.cluster().list(LEASES, leases.OURS)
    assert found["metadata"]["name"].startswith("moaa-deployment-moaa-smol-")
    assert found["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "moaa",
        "moaa.dev/run": "run-1",
        "moaa.dev/stage": "generate",
        "moaa.dev/holds": "Deployment.moaa-smol",
    }
    assert (leases.target_of(found), leases.holder_of(found)) == ("Deployment/moaa-smol", A)
    assert found["spec"]["leaseDurationSeconds"] == 120
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z", found["spec"]["renewTime"])


def test_each_renewal_changes_the_object(kube: KubeServer) -> None:
    lease = Lease(kube.cluster(), DEPLOYMENTS, "a", A)
    seen = set()
    for _ in range(3):
        lease.renew()
        seen.add(State.of(kube.find(LEASES, lease.name)))
    assert len(seen) == 3


def test_a_lease_that_somebody_removed_is_taken_again(kube: KubeServer) -> None:
    lease = Lease(kube.cluster(), DEPLOYMENTS, "a", A)
    lease.renew()
    kube.remove(LEASES, lease.name)
    lease.renew()
    assert holders(kube, DEPLOYMENTS, "a") == [A]


def test_others_are_those_on_the_same_object(kube: KubeServer) -> None:
    mine = Lease(kube.cluster(), DEPLOYMENTS, "a", A)
    mine.renew()
    hold(kube, DEPLOYMENTS, "b", B)
    assert mine.others() == []
    hold(kube, DEPLOYMENTS, "a", B)
    assert [leases.holder_of(each) for each in mine.others()] == [B]


def test_long_names_with_the_same_label_are_told_apart(kube: KubeServer) -> None:
    one, other = "x" * 70 + "1", "x" * 70 + "2"
    hold(kube, DEPLOYMENTS, other, B)
    assert Lease(kube.cluster(), DEPLOYMENTS, one, A).others() == []


def test_a_released_lease_is_not_taken_again_by_a_renewal(kube: KubeServer) -> None:
    lease = Lease(kube.cluster(), DEPLOYMENTS, "a", A)
    lease.renew()
    lease.release()
    called = []
    lease.renew(lambda: called.append(1))
    assert (holders(kube, DEPLOYMENTS, "a"), called) == ([], [])


def test_a_release_waits_for_the_renewal_that_is_under_way(kube: KubeServer) -> None:
    lease = Lease(kube.cluster(), DEPLOYMENTS, "a", A)
    begun, go_on, said = threading.Event(), threading.Event(), list[str]()

    def slowly() -> None:
        begun.set()
        go_on.wait(10)
        said.append("renewed")

    renewal = threading.Thread(target=lease.renew, args=(slowly,))
    renewal.start()
    begun.wait(10)

    def give_back() -> None:
        lease.release()
        said.append("released")

    release = threading.Thread(target=give_back)
    release.start()
    go_on.set()
    renewal.join(10)
    release.join(10)
    assert said == ["renewed", "released"]
    assert holders(kube, DEPLOYMENTS, "a") == []


def test_the_leases_of_a_run_are_not_those_of_its_namesake(kube: KubeServer) -> None:
    hold(kube, DEPLOYMENTS, "a", "run-1/sft/x", "run-11/sft/z", "run-1/label/y")
    found = leases.of_run(kube.cluster(), "run-1")
    assert sorted(map(leases.holder_of, found)) == ["run-1/label/y", "run-1/sft/x"]


def looked(observer: Observer, clock: Clock, after_s: float, **seen: str) -> set[str]:
    clock.now += after_s
    return observer.look(lambda: {key: State(state) for key, state in seen.items()})


def test_what_does_not_change_for_its_period_is_dead() -> None:
    observer = Observer(clock := Clock())
    for _ in range(13):
        assert looked(observer, clock, 10, a="1") == set()
    assert looked(observer, clock, 1, a="1") == {"a"}
    assert looked(observer, clock, 1, a="2") == set(), "renewed after all"


def test_what_changes_lives_whatever_the_clocks_of_its_holder_say() -> None:
    """The times in a lease are never read: only whether it changes."""
    observer = Observer(clock := Clock())
    for n in range(60):
        assert looked(observer, clock, 10, a=f"{n // 10}") == set()


def test_after_a_pause_everything_has_its_full_period() -> None:
    observer = Observer(clock := Clock())
    for _ in range(11):
        looked(observer, clock, 10, a="1")
    assert looked(observer, clock, 150, a="1") == set(), "150 s of silence prove nothing"
    for _ in range(12):
        assert looked(observer, clock, 10, a="1") == set()
    assert looked(observer, clock, 1, a="1") == {"a"}


def test_an_answer_that_took_long_is_a_pause_too() -> None:
    observer = Observer(clock := Clock())
    for _ in range(11):
        looked(observer, clock, 10, a="1")

    def slow() -> dict[str, State]:
        clock.now += MOST_APART_S + 1
        return {"a": State("1")}

    clock.now += 10
    assert observer.look(slow) == set()
    assert looked(observer, clock, 10, a="1") == set()


def test_after_a_failure_everything_has_its_full_period() -> None:
    observer = Observer(clock := Clock())
    for _ in range(12):
        looked(observer, clock, 10, a="1")

    def away() -> dict[str, State]:
        raise Unreachable("the API server is away")

    with pytest.raises(Unreachable):
        observer.look(away)
    for _ in range(13):
        assert looked(observer, clock, 10, a="1") == set()


def test_each_lease_has_the_period_that_it_names() -> None:
    observer = Observer(clock := Clock())
    dead = set()
    for _ in range(100):
        clock.now += 10
        dead = observer.look(lambda: {"long": State("1", 900), "short": State("1", 60)})
        assert ("short" in dead) == (clock.now - 1010 > 60)
        assert ("long" in dead) == (clock.now - 1010 > 900)
    assert dead == {"long", "short"}


@given(some.lists(some.tuples(some.floats(0.1, 60), some.booleans()), max_size=60))
def test_nothing_that_was_renewed_within_its_period_is_ever_dead(
    steps: list[tuple[float, bool]],
) -> None:
    """Looks come as they like; the holder renews now and then."""
    observer, state, renewed_at = Observer(clock := Clock()), 0, 1000.0
    for pause_s, renews in steps:
        clock.now += pause_s
        if renews:
            state, renewed_at = state + 1, clock.now
        dead = observer.look(lambda: {"a": State(str(state))})  # noqa: B023
        if clock.now - renewed_at <= LEASE_S:
            assert not dead


@pytest.mark.parametrize(
    ("leased", "annotations", "now_has", "wanted"),
    [
        (True, {}, 0, 1),
        (True, {REPLICAS: "3"}, 0, 3),
        (True, {REPLICAS: "3"}, 5, 5),  # never fewer while it is leased
        (False, {REPLICAS: "3"}, 3, 0),
        (False, {REPLICAS: "3", IDLE_REPLICAS: "1"}, 3, 1),
        (False, {IDLE_REPLICAS: "2"}, 0, 0),  # scaled by hand to fewer: left alone
    ],
)
def test_replicas(leased: bool, annotations: dict[str, str], now_has: int, wanted: int) -> None:
    found = deployment("a", "a", replicas=now_has, annotations=annotations)
    assert replicas.wanted(found, leased=leased) == wanted


def test_scaling_writes_the_number_of_replicas_alone(kube: KubeServer) -> None:
    kube.put(DEPLOYMENTS, deployment("a", "a", annotations={REPLICAS: "2"}))
    assert replicas.scale(kube.cluster(), "a", leased=True) == (0, 2)
    assert replicas.scale(kube.cluster(), "a", leased=True) == (2, 2)
    assert [each[:2] for each in kube.requests if each[0] == "PATCH"] == [
        ("PATCH", "deployments/a/scale")
    ]


def test_an_old_copy_does_not_decide_how_many_replicas_there_are(kube: KubeServer) -> None:
    old = kube.put(DEPLOYMENTS, deployment("a", "a"))
    kube.put(DEPLOYMENTS, deployment("a", "a", replicas=1))
    assert replicas.scale(kube.cluster(), "a", leased=False, known=old) == (1, 0)


def test_a_number_of_replicas_that_is_none() -> None:
    found = deployment("a", "a", annotations={REPLICAS: "two"})
    with pytest.raises(MoaaError, match=r"moaa\.dev/replicas is 'two'"):
        replicas.wanted(found, leased=True)


def test_the_holder_is_this_process_s_run_and_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(names.RUN_ENV, "run-9")
    monkeypatch.setenv(names.STAGE_ENV, "label")
    assert re.fullmatch("run-9/label/[0-9a-f]{8}", names.holder())
    assert names.holder() != names.holder()
    assert names.holder("r", "s").startswith("r/s/")
