"""Promotions that do not come to their end: killed, too late, another model, two at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from moaa.errors import MoaaError
from moaa.gateway.promotion import NotStarted, Promotion, RolledBack
from moaa.gateway.slots import revision_of
from moaa.gateway.traffic_split import roll_back
from moaa.kubernetes import leases
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, LEASES, SERVICES
from moaa.kubernetes.names import MODEL, SERVICE
from moaa.recipe.promote import Promote
from tests.support.kube_server import KubeServer
from tests.support.promotions import V1, V2, V3, World, promoted

HOW = Promote(hold_s=60)


class Killed(BaseException):
    """Nothing more is done, not even what `finally` says."""


def consistent(world: World) -> None:
    """A slot that anybody may be sent to serves what the shares say."""
    state = world.state
    for name, slot in state.slots.items():
        if slot.source and name in world.serving:
            assert world.serving[name] == slot.source, name
    assert sum(slot.share for slot in state.slots.values()) == 100
    for name, slot in state.slots.items():
        assert not slot.share or world.serving[name] == slot.source, name


def killed_at(world: World, n: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Promote V2, and be killed at the n-th write to the cluster or the store; whether it was."""
    count = 0

    def counted(real: Any) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count >= n:
                raise Killed
            return real(*given, **more)

        return call

    with monkeypatch.context() as patch:
        for write in ("patch", "create", "delete"):
            patch.setattr(Cluster, write, counted(getattr(Cluster, write)))
        patch.setattr(world.store, "put", counted(world.store.put))
        try:
            world.promotion.promote(world.store, V2, Promote(hold_s=1))
        except Killed:
            return True
    return False


def test_killed_at_any_write_the_slots_stay_true_and_the_next_attempt_ends_well(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart of the pods, at any of these moments, changes nothing of that."""
    n = 0
    while True:
        n += 1
        kube.objects.clear()
        world = World(kube)
        promoted(world, V3, V1, hold_s=1)
        if not killed_at(world, n, monkeypatch):
            break
        consistent(world)
        for slot in list(world.serving):
            world.restart(slot)
        consistent(world)
        promoted(world, V2, hold_s=1)
        state = world.state
        assert state.slots[state.production].source == V2
        consistent(world)
    assert n > 8, "it was killed at each write"


def test_a_promotion_that_had_its_end_is_only_looked_at(world: World) -> None:
    promoted(world, V1, V2)
    before, began = world.state, world.clock.now
    promoted(world, V2)
    assert (world.state, world.clock.now) == (before, began)


@pytest.mark.parametrize("starts", [True, False])
def test_after_its_deadline_everything_is_put_back_and_an_event_says_why(
    kube: KubeServer, starts: bool
) -> None:
    world = World(kube)
    promoted(world, V1)
    world.starts = starts
    how = Promote(hold_s=30, deadline_s=100)
    with pytest.raises(RolledBack, match="the deadline of the promotion has passed"):
        world.promotion.promote(world.store, V2, how, lambda urls: world.sleep(50))
    assert world.state.shares == {"a": 100, "b": 0}
    assert world.state.slots["b"].source == ""
    assert f"{revision_of(V2)} is not promoted" in world.state.reason
    assert world.replicas("b") == 0
    (event,) = world.events()
    assert event["reason"] == "MoaaNotPromoted"
    assert "deadline" in event["message"]
    assert not [key for key in kube.objects if key[0] == LEASES.plural]


def test_a_slot_that_does_not_start_is_put_back(world: World) -> None:
    promoted(world, V1)
    world.starts = False
    with pytest.raises(NotStarted, match="slot b did not start within 660 s"):
        world.promotion.promote(world.store, V2, HOW)
    assert world.state.slots["b"].source == ""
    assert len(world.events()) == 1


def test_a_slot_that_serves_another_model_gets_no_share(world: World) -> None:
    promoted(world, V1)
    asked: list[Sequence[str]] = []

    def refuse(urls: Sequence[str]) -> None:
        asked.append(urls)
        assert world.state.shares == {"a": 100, "b": 0}
        raise MoaaError("another model")

    with pytest.raises(MoaaError, match="another model"):
        world.promotion.promote(world.store, V2, canary=refuse)
    assert asked == [["http://10.0.0.1:8000/v1"]]
    assert world.state.slots["b"].source == ""
    assert "another model" in world.events()[0]["message"]


def test_what_the_guard_blamed_cannot_be_rolled_back_to(world: World) -> None:
    promoted(world, V1)
    blamed = lambda: roll_back(world.cluster, "ens-aligned", revision_of(V2), "9 of 10", "gw")  # noqa: E731
    world.at = [(world.clock.now + 70, blamed)]
    with pytest.raises(RolledBack):
        promoted(world, V2)
    with pytest.raises(MoaaError, match="no earlier version: slot b is empty"):
        world.promotion.roll_back("by hand")


def of_another(world: World) -> leases.Lease:
    lease = leases.Lease(world.cluster, DEPLOYMENTS, "ens-aligned-b", "run-1/promote/0a")
    lease.renew()
    return lease


def test_one_promotion_at_a_time(world: World) -> None:
    promoted(world, V1)
    other = of_another(world)
    world.at = [(world.clock.now + 20, other.renew)]
    said = r"another promotion .* is in progress \(run-1/promote/0a\)"
    with pytest.raises(MoaaError, match=said):
        promoted(world, V2)
    assert [leases.holder_of(each) for each in world.cluster.list(LEASES)] == ["run-1/promote/0a"]
    assert world.state.slots["b"].source == ""


def test_the_slot_of_a_promotion_that_was_killed_is_taken_over(world: World) -> None:
    promoted(world, V1)
    of_another(world)
    began = world.clock.now
    promoted(world, V2)
    assert world.state.production == "b"
    assert world.clock.now - began > leases.LEASE_S
    assert not world.cluster.list(LEASES)


def test_a_pod_that_restarts_in_the_middle_serves_what_its_own_slot_says(world: World) -> None:
    promoted(world, V1)
    seen: list[dict[str, str]] = []

    def restart() -> None:
        for slot in "ab":
            world.restart(slot)
        seen.append(dict(world.serving))

    world.at = [(world.clock.now + 70, restart)]
    promoted(world, V2)
    assert seen == [{"a": V1, "b": V2}]
    assert isinstance(world.promotion, Promotion)


def test_without_a_gateway_the_service_of_the_name_switches_from_slot_to_slot(
    kube: KubeServer,
) -> None:
    world = World(kube)
    annotations = {"metadata": {"annotations": {SERVICE: "ens-aligned"}}}
    world.cluster.patch(CONFIG_MAPS, "ens-aligned", annotations)
    selector = {"app": "ens", MODEL: "aligned-a"}
    kube.put(SERVICES, {"metadata": {"name": "ens-aligned"}, "spec": {"selector": selector}})

    def selected() -> str:
        found = kube.find(SERVICES, "ens-aligned")["spec"]["selector"]
        assert found["app"] == "ens"
        return str(found[MODEL])

    promoted(world, V1)
    assert selected() == "aligned-a"
    began = world.clock.now
    promoted(world, V2)
    assert selected() == "aligned-b"
    assert world.clock.now - began < 60, "there are no shares to hold"
    world.promotion.roll_back("a test")
    assert (selected(), world.state.production) == ("aligned-a", "a")
    world.starts = False
    with pytest.raises(NotStarted):
        promoted(world, V3)
    assert (selected(), world.state.production) == ("aligned-a", "a")
