"""`moaa promote` and `moaa rollback` on a cluster that starts pods when it is told to."""

from __future__ import annotations

from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from moaa.cli.serving import app
from moaa.commands import promotion
from moaa.commands.promotion import OPTIONS, Where
from moaa.errors import MoaaError
from moaa.gateway.places import place_of
from moaa.gateway.promotion import Promotion, RolledBack
from moaa.gateway.slots import Slots, pointed, revision_of
from moaa.gateway.traffic_split import roll_back
from moaa.kubernetes import replicas
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS, LEASES, PODS
from moaa.kubernetes.names import MODEL
from moaa.recipe.promote import Promote
from tests.support.fake_ensemble import deployment
from tests.support.kube_server import KubeServer
from tests.support.promotions import ROOT, V1, V2, V3, World, promoted


def test_the_first_version_goes_into_production_at_once(world: World) -> None:
    promoted(world, V1)
    assert world.state.production == "a"
    assert world.state.shares == {"a": 100, "b": 0}
    assert pointed(world.store.get(f"{ROOT}/pointers/aligned/a.json").decode(), "x") == V1
    assert world.replicas("a") == 1


def test_the_next_one_gets_its_share_in_steps_beside_it(world: World) -> None:
    promoted(world, V1)
    seen: list[dict[str, float]] = []
    start = world.clock.now
    world.at = [(start + s, lambda: seen.append(world.state.shares)) for s in (30, 90, 150)]
    promoted(world, V2)
    assert [each["b"] for each in seen] == [5, 25, 100]
    state = world.state
    assert (state.production, state.slots["b"].revision) == ("b", revision_of(V2))
    assert state.slots["a"].source == V1
    assert world.replicas("a") == 1, "the old slot stays warm"
    promoted(world, V3)
    assert (world.state.production, world.state.slots["a"].source) == ("a", V3)


def test_a_version_that_the_guard_blames_ends_the_promotion(world: World) -> None:
    promoted(world, V1)

    def blame() -> None:
        roll_back(world.cluster, "ens-aligned", revision_of(V2), "9 of 10 failed", "gateway-0")

    world.at = [(world.clock.now + 70, blame)]
    with pytest.raises(RolledBack, match="9 of 10 failed") as error:
        promoted(world, V2)
    assert error.value.exit_status == 3
    assert world.state.shares == {"a": 100, "b": 0}
    assert world.state.production == "a"
    assert world.replicas("b") == 0
    assert not [key for key in world.kube.objects if key[0] == LEASES.plural]


def test_a_roll_back_in_the_last_moment_of_a_step_is_not_overwritten(world: World) -> None:
    """It comes between the last look at the shares and the step that raises them."""
    promoted(world, V1)
    real = Promotion._check_share

    def check(self: Promotion, state: Slots, share: int, revision: str) -> None:
        real(self, state, share, revision)
        if share == 5 and self.clock() >= began + 60 and not done:
            done.append(roll_back(world.cluster, "ens-aligned", revision, "9 of 10", "gw"))

    began, done = world.clock.now, list[bool]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Promotion, "_check_share", check)
        with pytest.raises(RolledBack, match="9 of 10"):
            promoted(world, V2)
    assert done == [True]
    assert world.state.shares == {"a": 100, "b": 0}


def test_a_version_that_does_not_start_gets_no_share(kube: KubeServer) -> None:
    world = World(kube, starts=False)
    with pytest.raises(MoaaError, match="did not start within 660 s \\(no pod\\)"):
        promoted(world, V1)
    assert world.replicas("a") == 0 or world.state.shares["b"] == 0


def test_what_is_no_model_is_not_promoted(world: World) -> None:
    with pytest.raises(MoaaError, match="is not a model"):
        promoted(world, f"{ROOT}/pointers")
    assert not world.store.exists(f"{ROOT}/pointers/aligned/a.json")


def test_a_rollback_of_a_warm_slot_changes_the_shares_alone(world: World) -> None:
    promoted(world, V1, V2)
    began = world.clock.now
    state = world.promotion.roll_back("wrong language")
    assert (state.production, state.shares["a"], state.reason) == ("a", 100, "wrong language")
    assert world.clock.now == began


def test_a_rollback_of_a_cold_slot_starts_it_first(world: World) -> None:
    promoted(world, V1, V2)
    world.cluster.patch(DEPLOYMENTS, "ens-aligned-a/scale", {"spec": {"replicas": 0}})
    world._follow(world.kube.find(DEPLOYMENTS, "ens-aligned-a"))
    world.promotion.roll_back("wrong language")
    assert world.replicas("a") == 1
    assert world.state.production == "a"


def test_there_is_nothing_before_the_first_version(world: World) -> None:
    promoted(world, V1)
    with pytest.raises(MoaaError, match="no earlier version"):
        world.promotion.roll_back("by hand")


def test_an_unknown_name_is_told_which_there_are(world: World) -> None:
    with pytest.raises(MoaaError, match="there: aligned"):
        place_of(world.cluster, "alinged")


def test_models_lists_slots_and_others(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    promoted(world, V1, V2)
    world.kube.put(DEPLOYMENTS, deployment("ens-smol", "smol"))
    monkeypatch.setattr(Cluster, "connect", lambda namespace: world.cluster)
    promotion.models(Where(namespace="team"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"aligned: {revision_of(V2)}, 100 % since")
    assert lines[2].split()[:5] == ["b", "100", "%", "1", "up"]
    assert lines[2].endswith("in production")
    assert lines[3] == "smol: asleep"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": "5,25"}, "--steps: steps: write growing shares"),
        ({"steps": "25,5,100"}, "--steps: steps: write growing shares"),
        ({"steps": "0,100"}, "--steps: steps: write growing shares"),
        ({"steps": "100,100"}, "--steps: steps: write growing shares"),
        ({"steps": "five"}, '--steps: steps[0] is "five". It must be a whole number.'),
        ({"hold_s": -1.0}, "--hold: hold_s is -1. It must be greater than or equal to 0."),
        ({"deadline_s": 0.0}, "--deadline: deadline_s is 0. It must be greater than 0."),
        ({"deadline_s": 900.0}, "--deadline: deadline_s: it is 900, and 3 steps of 300 s take as"),
        ({"hold_s": 3600.0}, "moaa promote: deadline_s: it is 7200, and 3 steps of 3600 s take"),
    ],
)
def test_options_that_cannot_be_are_refused_as_in_a_recipe(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(MoaaError) as error:
        promotion.promote("aligned", V1, options, Where(), why="")
    assert said in str(error.value)


def test_the_help_tells_the_defaults_of_a_recipe() -> None:
    commands = get_command(app)
    assert isinstance(commands, TyperGroup)
    helps = {each.name: getattr(each, "help", "") for each in commands.commands["promote"].params}
    for name in OPTIONS:
        default = Promote.model_fields[name].default
        values = default if isinstance(default, tuple) else (default,)
        shown = ",".join("none" if each is None else f"{each:g}" for each in values)
        assert helps[name].endswith(f"Default: {shown}"), name


def test_a_slot_that_is_started_once_more_while_it_is_emptied_serves_its_new_version(
    world: World,
) -> None:
    """By a gateway that renews its lease on the old slot, which it keeps warm."""
    promoted(world, V1, V2)
    labels = {MODEL: world.kube.find(DEPLOYMENTS, "ens-aligned-a")["metadata"]["labels"][MODEL]}
    world.kube.put(PODS, {"metadata": {"name": "old", "labels": labels}})
    began = world.clock.now
    world.at = [
        (began + 3, lambda: replicas.scale(world.cluster, "ens-aligned-a", leased=True)),
        (began + 6, lambda: world.kube.remove(PODS, "old")),
    ]
    promoted(world, V3)
    assert world.serving["a"] == V3
